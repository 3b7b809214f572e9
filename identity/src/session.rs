//! What a finished handshake proves about *this* connection: the material that evidence is bound to.

use rustls::{CommonState, HandshakeKind, NamedGroup, ProtocolVersion};

use crate::{Error, Leaf, leaf};

/// RFC 9266 §4.2. The context is empty, which in TLS 1.3 is the same as none (RFC 8446 §7.5).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// Facts about one TLS 1.3 connection, the same whoever asks at either end, except for `peer`.
#[derive(Clone, Debug)]
pub struct SessionFacts {
    /// RFC 9266 `tls-exporter`: unique to the connection, equal at both ends.
    pub exporter: [u8; 32],
    /// The peer's leaf. Its chain was verified in the handshake.
    pub peer: Option<Leaf>,
    pub alpn: Option<Vec<u8>>,
    /// The key exchange that was agreed on.
    pub group: Option<NamedGroup>,
}

impl SessionFacts {
    /// # Errors
    /// [`Error::Protocol`] unless the handshake agreed on exactly `expected`.
    pub fn require_alpn(&self, expected: &[u8]) -> Result<(), Error> {
        if self.alpn.as_deref() == Some(expected) {
            return Ok(());
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Err(Error::Protocol {
            expected: text(expected),
            actual: self.alpn.as_deref().map(text),
        })
    }
}

/// # Errors
/// The handshake is unfinished, not TLS 1.3, or resumed an earlier session.
pub fn server_facts(connection: &rustls::ServerConnection) -> Result<SessionFacts, Error> {
    facts(connection, |out| {
        connection.export_keying_material(out, EXPORTER_LABEL, None)
    })
}

/// # Errors
/// The handshake is unfinished, not TLS 1.3, or resumed an earlier session.
pub fn client_facts(connection: &rustls::ClientConnection) -> Result<SessionFacts, Error> {
    facts(connection, |out| {
        connection.export_keying_material(out, EXPORTER_LABEL, None)
    })
}

fn facts(
    state: &CommonState,
    export: impl FnOnce([u8; 32]) -> Result<[u8; 32], rustls::Error>,
) -> Result<SessionFacts, Error> {
    if state.is_handshaking() {
        return Err(Error::Incomplete);
    }
    if state.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Err(Error::NotTls13);
    }
    match state.handshake_kind() {
        Some(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest) => {}
        Some(HandshakeKind::Resumed) => return Err(Error::Resumed),
        None => return Err(Error::Incomplete),
    }
    let peer = match state.peer_certificates() {
        Some([end_entity, ..]) => Some(leaf(end_entity)?),
        Some([]) | None => None,
    };
    Ok(SessionFacts {
        exporter: export([0; 32])?,
        peer,
        alpn: state.alpn_protocol().map(<[u8]>::to_vec),
        group: state
            .negotiated_key_exchange_group()
            .map(|group| group.name()),
    })
}
