//! An image with the files of its ramdisks.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its world should stop"
)]

mod support;

use image::{Error, Image, Listing, Remark, Stop};
use support::newc::{Raw, archive, gzip, paths};
use support::{COMMAND_LINE, OFFICIAL, SIGNED, packed};

fn read(bytes: &[u8]) -> Result<(Image, Vec<Listing>), Error> {
    Image::read_with_files(bytes, 1024)
}

fn sample() -> Vec<u8> {
    let boot = archive(&[Raw::file("init", b"init"), Raw::directory("app")]);
    let app = archive(&[
        Raw::directory("app"),
        Raw::file("app/enclave.toml", b"[engine]\n"),
    ]);
    packed(b"kernel", COMMAND_LINE, &[&gzip(&boot), &gzip(&app)], None).unwrap()
}

#[test]
fn the_files_of_each_ramdisk_are_listed() {
    let (image, listings) = read(&sample()).unwrap();
    assert_eq!(image, support::read(&sample()).unwrap());
    assert_eq!(paths(&listings[0]), ["init", "app"]);
    assert_eq!(paths(&listings[1]), ["app", "app/enclave.toml"]);
    let config = &listings[1].entries[1];
    assert_eq!(config.content.as_deref(), Some(&b"[engine]\n"[..]));
    assert!(listings.iter().all(|list| list.stopped.is_none()));
}

#[test]
fn a_file_that_the_second_ramdisk_replaces_is_told() {
    let boot = archive(&[Raw::file("init", b"good")]);
    let app = archive(&[Raw::file("init", b"evil")]);
    let bytes = packed(b"kernel", COMMAND_LINE, &[&boot, &app], None).unwrap();
    let (_, listings) = read(&bytes).unwrap();
    let (path, ramdisk) = ("init".into(), 1);
    assert_eq!(listings[1].remarks, [Remark::Replaces { path, ramdisk }]);
}

#[test]
fn an_archive_behind_an_odd_one_is_left_out() {
    let boot = gzip(&archive(&[Raw::file("init", b"1")]));
    let odd = [&boot[..], &[0; 3]].concat();
    let odd = odd.get(..boot.len() | 1).unwrap();
    let app = archive(&[Raw::file("app", b"1")]);
    let bytes = packed(b"kernel", COMMAND_LINE, &[odd, &app], None).unwrap();
    let (image, listings) = read(&bytes).unwrap();
    assert_eq!(paths(&listings[0]), ["init"]);
    let at = odd.len() as u64;
    assert_eq!(listings[1].stopped, Some(Stop::Unaligned { at }));
    // Measured all the same.
    assert_eq!(image.ramdisks[1].size, app.len() as u64);
}

#[test]
fn ramdisks_that_cannot_be_listed_are_measured_all_the_same() {
    for bytes in [OFFICIAL, SIGNED] {
        let (image, listings) = read(bytes).unwrap();
        assert_eq!(image, support::read(bytes).unwrap());
        assert!(matches!(listings[0].stopped, Some(Stop::Refused(_))));
        assert!(listings[0].entries.is_empty());
    }
}

#[test]
fn refuses_what_is_refused_without_files() {
    let bytes = sample();
    let same = |bytes: &[u8]| {
        let expected = support::read(bytes).unwrap_err();
        assert_eq!(read(bytes).unwrap_err().to_string(), expected.to_string());
    };
    for end in 0..bytes.len() {
        same(&bytes[..end]);
    }
    for at in (0..bytes.len()).step_by(7) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        same(&bytes);
    }
    same(&[&bytes[..], &[0]].concat());
}

#[test]
fn a_failing_reader_is_no_truncated_file() {
    struct Failing;
    impl std::io::Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("broken disk"))
        }
    }
    let bytes = sample();
    for end in [0, 10, 560, bytes.len() - 200, bytes.len()] {
        let reader = std::io::Read::chain(&bytes[..end], Failing);
        match Image::read_with_files(reader, 0).unwrap_err() {
            Error::Io(error) => assert_eq!(error.to_string(), "broken disk"),
            error => panic!("{end}: {error}"),
        }
    }
}

#[test]
fn the_kernel_says_its_version() {
    let mut kernel = vec![0; 0x1000];
    kernel[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20f] = 2;
    kernel[0x400..0x407].copy_from_slice(b"6.12.48");
    let bytes = packed(&kernel, "", &[b"ramdisk"], None).unwrap();
    let image = support::read(&bytes).unwrap();
    assert_eq!(image.kernel_version.as_deref(), Some("6.12.48"));
    assert_eq!(image.kernel.size, 0x1000);
    let none = support::read(OFFICIAL).unwrap().kernel_version;
    assert_eq!(none, None);
}
