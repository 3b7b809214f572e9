use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use rustls::AlertDescription as Alert;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The alert with which the server refused our certificate, once it has.
pub(super) type CertificateAlert = Arc<OnceLock<Alert>>;

/// A TLS stream that remembers such an alert. In TLS 1.3 it arrives after the client's handshake is complete, in the
/// middle of HTTP/2, whose errors keep only its text.
pub(super) struct Watched<S> {
    inner: S,
    alert: CertificateAlert,
}

impl<S> Watched<S> {
    pub(super) fn new(inner: S) -> (Self, CertificateAlert) {
        let alert = CertificateAlert::default();
        let watched = Self {
            inner,
            alert: Arc::clone(&alert),
        };
        (watched, alert)
    }

    fn remember(&self, error: &io::Error) {
        let tls = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(&rustls::Error::AlertReceived(alert)) = tls
            && is_about_certificates(alert)
        {
            self.alert.get_or_init(|| alert);
        }
    }
}

fn is_about_certificates(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::UnknownCA
            | Alert::AccessDenied
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let ready = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &ready {
            self.remember(error);
        }
        ready
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
