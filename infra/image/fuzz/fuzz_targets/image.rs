//! Arbitrary bytes as an image. Listing files changes nothing about what is measured and what is refused.
//! Begin with a corpus of real images (`tests/data`): the checksum keeps arbitrary ones out.
#![no_main]

use image::Image;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match (Image::read(bytes), Image::read_with_files(bytes, 64)) {
        (Ok(image), Ok((listed, files))) => {
            assert_eq!(image, listed);
            assert_eq!(image.ramdisks.len(), files.len());
            assert_eq!(image.size, bytes.len() as u64);
        }
        (Err(one), Err(other)) => assert_eq!(one.to_string(), other.to_string()),
        _ => panic!("listing the files decides whether an image is one"),
    }
});
