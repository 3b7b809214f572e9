//! The module itself: registers, their locks, and a leaf that it has issued again in time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use attestation::{AttestError, AttestationRequest, Attester, DIGEST, Evidence, Pcr, Pcrs};
use coset::iana::Algorithm;

use super::document::DocumentBuilder;
use super::error::PkiError;
use super::pki::{SimLeaf, SimPki};
use super::rank::INSTANCE_ID;

/// Real modules get a new leaf every 2 hours 45 minutes.
const RENEW_BEFORE_END: Duration = Duration::from_secs(15 * 60);

/// Registers 0 to 15 are set and locked at boot; 16 to 31 are the program's.
const BOOT_REGISTERS: u8 = 16;
const REGISTERS: u8 = 32;

type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// A simulated secure module.
pub struct SimNsm {
    module_id: String,
    clock: Clock,
    state: Mutex<State>,
}

struct State {
    pki: SimPki,
    leaf: Option<SimLeaf>,
    registers: BTreeMap<u8, Register>,
}

#[derive(Clone, Copy)]
struct Register {
    value: Pcr,
    locked: bool,
}

impl SimNsm {
    /// A module that booted with `pcrs`; registers 0 to 15 that it does not name are zero.
    pub fn new(pki: SimPki, pcrs: Pcrs, clock: Clock) -> Self {
        let register = |index: u8| {
            let booted = pcrs.get(&index);
            let value = booted.copied().unwrap_or(Pcr::ZERO);
            (
                index,
                Register {
                    value,
                    locked: index < BOOT_REGISTERS || booted.is_some(),
                },
            )
        };
        Self {
            module_id: format!("{INSTANCE_ID}-enc0c1015e000000000"),
            clock,
            state: Mutex::new(State {
                pki,
                leaf: None,
                registers: (0..REGISTERS).map(register).collect(),
            }),
        }
    }

    /// The document that [`Attester::attest`] would sign, and the leaf that would sign it.
    ///
    /// # Errors
    /// See [`PkiError`].
    pub fn document(
        &self,
        request: &AttestationRequest<'_>,
    ) -> Result<(DocumentBuilder, SimLeaf), PkiError> {
        let now = (self.clock)();
        let state = self.state();
        let leaf = state.pki.issue_leaf(&self.module_id, now)?;
        Ok((self.build(&state, &leaf, request, now), leaf))
    }

    fn build(
        &self,
        state: &State,
        leaf: &SimLeaf,
        request: &AttestationRequest<'_>,
        now: SystemTime,
    ) -> DocumentBuilder {
        let since_epoch = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let present = |value: &[u8]| (!value.is_empty()).then(|| value.to_vec());
        DocumentBuilder {
            module_id: self.module_id.clone(),
            digest: DIGEST.to_owned(),
            timestamp_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
            pcrs: state.reported(),
            certificate: leaf.certificate.clone(),
            cabundle: state.pki.cabundle(),
            public_key: present(request.public_key),
            user_data: present(request.user_data),
            nonce: present(request.nonce),
            extra: Vec::new(),
            indefinite: true,
            tagged: false,
            algorithm: Algorithm::ES384,
            spoil_signature: 0,
        }
    }

    /// A panic while the lock was held leaves every register as it was or as it should be.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attester for SimNsm {
    fn attest(&self, request: &AttestationRequest<'_>) -> Result<Evidence, AttestError> {
        request.check()?;
        let now = (self.clock)();
        let mut state = self.state();
        let leaf = state.take_leaf(&self.module_id, now).map_err(platform)?;
        let evidence = self.build(&state, &leaf, request, now).sign(&leaf);
        state.leaf = Some(leaf);
        evidence.map_err(platform)
    }

    fn measurements(&self) -> Result<Pcrs, AttestError> {
        Ok(self.state().reported())
    }

    fn extend_and_lock(&self, index: u8, data: &[u8]) -> Result<Pcr, AttestError> {
        let mut state = self.state();
        let Some(register) = state.registers.get_mut(&index) else {
            return Err(AttestError::NoSuchRegister { index });
        };
        if register.locked {
            return Err(AttestError::Locked { index });
        }
        register.value = register.value.extend(data);
        register.locked = true;
        Ok(register.value)
    }

    fn random(&self, out: &mut [u8]) -> Result<(), AttestError> {
        match aws_lc_rs::rand::fill(out) {
            Ok(()) => Ok(()),
            Err(error) => Err(platform(error)),
        }
    }
}

impl State {
    /// The current leaf, or a new one when it is about to end.
    fn take_leaf(&mut self, module_id: &str, now: SystemTime) -> Result<SimLeaf, PkiError> {
        match self.leaf.take() {
            Some(leaf) if leaf.not_after > now + RENEW_BEFORE_END => Ok(leaf),
            _ => {
                self.pki.renew(now)?;
                self.pki.issue_leaf(module_id, now)
            }
        }
    }

    fn reported(&self) -> Pcrs {
        self.registers
            .iter()
            .filter(|(_, register)| register.locked)
            .map(|(index, register)| (*index, register.value))
            .collect()
    }
}

fn platform(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AttestError {
    AttestError::Platform(error.into())
}
