//! The Nitro Secure Module of a real enclave, `/dev/nsm`.

use std::fs::File;
use std::os::fd::AsRawFd;

use aws_nitro_enclaves_nsm_api::api::{ErrorCode, Request, Response};
use aws_nitro_enclaves_nsm_api::driver::nsm_process_request;

use crate::attester::{AttestError, AttestationRequest, Attester};
use crate::evidence::Evidence;
use crate::pcr::{Pcr, Pcrs};

const DEVICE: &str = "/dev/nsm";

/// Registers 0 to 15 are part of every document; later ones appear once they are locked.
const ALWAYS_REPORTED: u16 = 16;

/// Registers have indices 0 to 31.
const REGISTERS: u16 = 32;

/// Evidence from the hardware. Holds the device open; closed on drop.
#[derive(Debug)]
pub struct NsmAttester {
    // Opened here and not by the driver crate, so that the descriptor has an owner.
    device: File,
}

impl NsmAttester {
    /// Opens `/dev/nsm`.
    ///
    /// # Errors
    /// [`AttestError::Open`] outside a Nitro enclave.
    pub fn open() -> Result<Self, AttestError> {
        let device = File::options().read(true).write(true).open(DEVICE);
        match device {
            Ok(device) => Ok(Self { device }),
            Err(source) => Err(AttestError::Open {
                device: DEVICE,
                source,
            }),
        }
    }

    fn call(&self, operation: &'static str, request: Request) -> Result<Response, AttestError> {
        match nsm_process_request(self.device.as_raw_fd(), request) {
            Response::Error(code) => Err(AttestError::Refused {
                operation,
                code: name(&code),
            }),
            response => Ok(response),
        }
    }

    fn register(&self, index: u16) -> Result<(bool, Pcr), AttestError> {
        let operation = "DescribePCR";
        match self.call(operation, Request::DescribePCR { index })? {
            Response::DescribePCR { lock, data } => Ok((lock, pcr(operation, &data)?)),
            _ => Err(AttestError::UnexpectedAnswer { operation }),
        }
    }
}

impl Attester for NsmAttester {
    fn attest(&self, request: &AttestationRequest<'_>) -> Result<Evidence, AttestError> {
        request.check()?;
        let operation = "Attestation";
        let request = Request::Attestation {
            user_data: Some(request.user_data.to_vec().into()),
            nonce: Some(request.nonce.to_vec().into()),
            public_key: Some(request.public_key.to_vec().into()),
        };
        match self.call(operation, request)? {
            Response::Attestation { document } => match Evidence::from_bytes(document) {
                Ok(evidence) => Ok(evidence),
                Err(_) => Err(AttestError::UnexpectedAnswer { operation }),
            },
            _ => Err(AttestError::UnexpectedAnswer { operation }),
        }
    }

    fn measurements(&self) -> Result<Pcrs, AttestError> {
        let operation = "DescribeNSM";
        let Response::DescribeNSM { max_pcrs, .. } = self.call(operation, Request::DescribeNSM)?
        else {
            return Err(AttestError::UnexpectedAnswer { operation });
        };
        let mut pcrs = Pcrs::new();
        for index in 0..max_pcrs.min(REGISTERS) {
            let (locked, value) = self.register(index)?;
            if index < ALWAYS_REPORTED || locked {
                let Ok(index) = u8::try_from(index) else {
                    break;
                };
                pcrs.insert(index, value);
            }
        }
        Ok(pcrs)
    }

    fn extend_and_lock(&self, index: u8, data: &[u8]) -> Result<Pcr, AttestError> {
        let operation = "ExtendPCR";
        let request = Request::ExtendPCR {
            index: index.into(),
            data: data.to_vec(),
        };
        let value = match nsm_process_request(self.device.as_raw_fd(), request) {
            Response::ExtendPCR { data } => pcr(operation, &data)?,
            Response::Error(ErrorCode::ReadOnlyIndex) => return Err(AttestError::Locked { index }),
            Response::Error(ErrorCode::InvalidIndex) => {
                return Err(AttestError::NoSuchRegister { index });
            }
            Response::Error(code) => {
                return Err(AttestError::Refused {
                    operation,
                    code: name(&code),
                });
            }
            _ => return Err(AttestError::UnexpectedAnswer { operation }),
        };
        match self.call(
            "LockPCR",
            Request::LockPCR {
                index: index.into(),
            },
        )? {
            Response::LockPCR => Ok(value),
            _ => Err(AttestError::UnexpectedAnswer {
                operation: "LockPCR",
            }),
        }
    }

    fn random(&self, out: &mut [u8]) -> Result<(), AttestError> {
        let operation = "GetRandom";
        let mut filled = 0;
        while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let Response::GetRandom { random } = self.call(operation, Request::GetRandom)? else {
                return Err(AttestError::UnexpectedAnswer { operation });
            };
            // The module gives up to 256 bytes a call; none at all would loop for ever.
            if random.is_empty() {
                return Err(AttestError::UnexpectedAnswer { operation });
            }
            filled += random.len().min(rest.len());
            for (to, from) in rest.iter_mut().zip(random) {
                *to = from;
            }
        }
        Ok(())
    }
}

fn pcr(operation: &'static str, data: &[u8]) -> Result<Pcr, AttestError> {
    match <[u8; Pcr::LENGTH]>::try_from(data) {
        Ok(bytes) => Ok(Pcr::from_bytes(bytes)),
        Err(_) => Err(AttestError::UnexpectedAnswer { operation }),
    }
}

fn name(code: &ErrorCode) -> &'static str {
    match code {
        ErrorCode::Success => "Success",
        ErrorCode::InvalidArgument => "InvalidArgument",
        ErrorCode::InvalidIndex => "InvalidIndex",
        ErrorCode::InvalidResponse => "InvalidResponse",
        ErrorCode::ReadOnlyIndex => "ReadOnlyIndex",
        ErrorCode::InvalidOperation => "InvalidOperation",
        ErrorCode::BufferTooSmall => "BufferTooSmall",
        ErrorCode::InputTooLarge => "InputTooLarge",
        ErrorCode::InternalError => "InternalError",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_the_device_is_told_so() {
        if std::path::Path::new(DEVICE).exists() {
            println!("skipped: {DEVICE} exists here");
            return;
        }
        let error = NsmAttester::open().unwrap_err();
        assert_eq!(error.to_string(), "cannot open /dev/nsm");
    }
}
