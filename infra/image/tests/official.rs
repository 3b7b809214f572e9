//! Against images that AWS's builder made (`data/README.md`), and registers as its tools print them.

mod support;

use image::{changes, instance_pcr, role_pcr};
use support::{COMMAND_LINE, OFFICIAL, SIGNED, packed, packed_inputs, read};

/// As the builder printed them.
const PCR0: &str = "308d8f149524c9a64e1c80086c315550fa77792c6df9ec0ecaf8e79d73fede8c20dd7fe81ecca0108456d3f1879f9d1c";
const PCR1: &str = "3f651e60c5ccca54cb2121bcaa9953149799373da260fd1daa071543daba5246750e4bd9a98251a4e715b96123cc3697";
const PCR2: &str = "63d84ac25cdd8ff866631cf71251a1d65207d42ad7a3460fc0c750352e07341b823d512bd08cd60b2902c25c74639a6a";
const PCR8: &str = "2c4aada90f365f64f6a99e18c497f11597f57bbd8d90f3b09acb715f7bba831ddc51f195295ce031e99489fb354f7479";
/// Of every image with a single ramdisk, AWS's own samples among them.
const PCR2_WITHOUT_APPLICATION: &str = "21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c10edb30948c90ba67310f7b964fc500a";

#[test]
fn registers_are_those_that_the_official_builder_prints() {
    for (bytes, pcr8) in [(OFFICIAL, None), (SIGNED, Some(PCR8.to_owned()))] {
        let pcrs = read(bytes).unwrap().measurements;
        assert_eq!(pcrs.pcr0.to_string(), PCR0);
        assert_eq!(pcrs.pcr1.to_string(), PCR1);
        assert_eq!(pcrs.pcr2.to_string(), PCR2);
        assert_eq!(pcrs.pcr8.map(|pcr| pcr.to_string()), pcr8);
    }
}

#[test]
fn the_writer_makes_the_official_builders_bytes() {
    assert!(packed_inputs(None) == OFFICIAL);
}

#[test]
fn the_writer_makes_the_official_bytes_around_a_signature_too() {
    // The signature is the last section.
    let section = SIGNED.get(OFFICIAL.len() + 12..).unwrap();
    assert!(packed_inputs(Some(section)) == SIGNED);
}

#[test]
fn everything_in_an_official_image_is_read() {
    let image = read(SIGNED).unwrap();
    assert_eq!(image.command_line, COMMAND_LINE);
    assert_eq!(image.kernel.size, 3000);
    let sizes: Vec<_> = image.ramdisks.iter().map(|ramdisk| ramdisk.size).collect();
    assert_eq!(sizes, [1001, 502, 77]);
    assert_eq!(image.size, SIGNED.len() as u64);
    assert_eq!(
        (image.default_memory, image.default_processors),
        (1 << 30, 2)
    );
    let metadata = image.metadata.unwrap();
    assert_eq!(
        (metadata.name(), metadata.version()),
        (Some("probe"), Some("1"))
    );
    assert_eq!(image.signature.unwrap().subject(), "CN=image signing test");
}

#[test]
fn an_image_with_one_ramdisk_has_the_pcr2_of_nothing() {
    let pcrs = read(&packed(b"k", "", &[b"r"], None).unwrap())
        .unwrap()
        .measurements;
    assert_eq!(pcrs.pcr2.to_string(), PCR2_WITHOUT_APPLICATION);
    assert_eq!(pcrs.pcr0, pcrs.pcr1);
}

#[test]
fn role_and_instance_are_extended_as_text() {
    // (head -c 48 /dev/zero; printf %s "$TEXT") | sha384sum
    assert_eq!(
        role_pcr("arn:aws:iam::123456789012:role/enclave").to_string(),
        "b1fd651ff7878eaff12dd954c8af010570acf204ad3c60b3832e3e8f109f2ce9fa7e9ee8b3e848a415da9e8d720d7158"
    );
    assert_eq!(
        instance_pcr("i-0123456789abcdef0").to_string(),
        "d6432900ac1c343cb40286898792c55e962aef0cc35c4910c0c286145b51af19e782cb21cc31a042671d7dfbd398251c"
    );
}

#[test]
fn signing_alone_moves_only_pcr8() {
    let changes = changes(&read(OFFICIAL).unwrap(), &read(SIGNED).unwrap());
    assert_eq!(changes.len(), 1);
    assert_eq!(
        (changes[0].what.as_str(), changes[0].registers),
        ("signing certificate", &[8][..])
    );
}

#[test]
fn metadata_is_told_by_field_and_cannot_write_to_a_terminal() {
    let (kernel, [a, b, c]) = support::inputs();
    let text = "{\"ImageName\":\"\u{7f}\u{9b}2J\u{202e}\"}";
    let line = COMMAND_LINE.as_bytes();
    let other = support::assembled(&[
        (1, &kernel),
        (2, line),
        (5, text.as_bytes()),
        (3, &a),
        (3, &b),
        (3, &c),
    ]);
    let changes = changes(&read(OFFICIAL).unwrap(), &read(&other).unwrap());
    let name = changes
        .iter()
        .find(|change| change.what == "metadata ImageName")
        .unwrap();
    assert_eq!(name.before, "\"probe\"");
    assert_eq!(name.after, r#""\u{7f}\u{9b}2J\u{202e}""#);
    assert!(
        changes.iter().all(|change| change.registers.is_empty()),
        "{changes:?}"
    );
}

/// Nothing measures the cuts: whoever trusts a command line must not trust registers alone.
#[test]
fn a_moved_cut_keeps_the_registers_and_is_told() {
    let image = |command_line: &str, ramdisk: &[u8]| {
        read(&packed(b"kernel", command_line, &[ramdisk, b"app"], None).unwrap()).unwrap()
    };
    let (before, after) = (
        image("quiet lockdown", b"070701"),
        image("quiet", b" lockdown070701"),
    );
    assert_eq!(before.measurements, after.measurements);
    let changes = changes(&before, &after);
    let what: Vec<_> = changes.iter().map(|change| change.what.as_str()).collect();
    assert_eq!(what, ["command line", "ramdisk 1"]);
}
