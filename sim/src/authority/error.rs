use std::io;

use transport::Endpoint;

/// Why the development authority does not serve.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Private keys would leave the machine, or a client could not name it.
    #[error("{0} cannot serve the Workload API: write unix:///PATH or a loopback tcp://IP:PORT")]
    Endpoint(Endpoint),
    /// An endpoint could not be opened.
    #[error(transparent)]
    Listen(io::Error),
    /// A listener broke.
    #[error("the Workload API stopped: {0}")]
    Stopped(io::Error),
    /// An entry the authority cannot sign.
    #[error(transparent)]
    Issue(#[from] identity::Error),
}
