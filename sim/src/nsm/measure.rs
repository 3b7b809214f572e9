//! Measurements of a program that runs without an enclave: what the build would measure, computed over what there is.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use attestation::{Pcr, Pcrs, Sha384Digest};
use aws_lc_rs::digest::{Context, SHA384};

/// Stands where a real image has its kernel and bootstrap.
const SIMULATED_KERNEL: &[u8] = b"cloister simulated kernel and bootstrap";

/// Registers 0 to 15, as a secure module reports them at boot.
///
/// - PCR0, the image: program and configuration. PCR1, the kernel: a fixed label. PCR2, the application: configuration.
/// - PCR3, the role, and PCR4, the parent instance: as AWS computes them. All others are zero.
///
/// # Errors
/// The program's file cannot be read.
pub fn measure(exe: &Path, config: &[u8], role_arn: &str, instance_id: &str) -> io::Result<Pcrs> {
    let config = Sha384Digest::of(config);
    let mut pcrs: Pcrs = (0..16).map(|index| (index, Pcr::ZERO)).collect();
    let program = sha384_of_file(exe)?;
    pcrs.insert(0, Pcr::ZERO.extend(&program).extend(config.as_bytes()));
    pcrs.insert(1, Pcr::ZERO.extend(SIMULATED_KERNEL));
    pcrs.insert(2, Pcr::ZERO.extend(config.as_bytes()));
    if !role_arn.is_empty() {
        pcrs.insert(3, Pcr::ZERO.extend(role_arn.as_bytes()));
    }
    pcrs.insert(4, Pcr::ZERO.extend(instance_id.as_bytes()));
    Ok(pcrs)
}

fn sha384_of_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut context = Context::new(&SHA384);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => return Ok(context.finish().as_ref().to_vec()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        context.update(buffer.get(..read).unwrap_or_default());
    }
}
