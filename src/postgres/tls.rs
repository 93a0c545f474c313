//! TLS towards Postgres: what the address asks for, and whether the server is asked who it is.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres::config::SslMode;

use super::connect::ConnectError;

/// What the address says about TLS.
pub(super) struct Ssl {
    pub(super) mode: SslMode,
    /// Whether the server's certificate and name are checked.
    verify: bool,
    root: Option<PathBuf>,
}

/// Takes `sslmode` and `sslrootcert` out of an address, because the parser knows neither
/// `verify-full` nor root certificates.
pub(super) fn take(url: &str) -> Result<(String, Ssl), ConnectError> {
    let is_url = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let (head, separator, parameters) = match (is_url, url.split_once('?')) {
        (true, Some((head, query))) => (head, '&', query.split('&').collect::<Vec<_>>()),
        (true, None) => (url, '&', Vec::new()),
        (false, _) => ("", ' ', url.split_whitespace().collect()),
    };
    let mut ssl = Ssl {
        mode: SslMode::Prefer,
        verify: false,
        root: None,
    };
    let mut kept = Vec::new();
    for parameter in parameters {
        match parameter.split_once('=') {
            Some(("sslmode", mode)) => (ssl.mode, ssl.verify) = ssl_mode(mode)?,
            Some(("sslrootcert", path)) => ssl.root = Some(PathBuf::from(decode(path))),
            _ => kept.push(parameter),
        }
    }
    let kept = kept.join(&separator.to_string());
    let url = match (is_url, kept.is_empty()) {
        (true, true) => head.to_owned(),
        (true, false) => format!("{head}?{kept}"),
        (false, _) => kept,
    };
    Ok((url, ssl))
}

fn ssl_mode(mode: &str) -> Result<(SslMode, bool), ConnectError> {
    match mode {
        "disable" => Ok((SslMode::Disable, false)),
        "prefer" => Ok((SslMode::Prefer, false)),
        "require" => Ok((SslMode::Require, false)),
        "verify-full" => Ok((SslMode::Require, true)),
        _ => Err(ConnectError::Url(format!(
            "sslmode={mode} is not known; use disable, prefer, require or verify-full"
        ))),
    }
}

/// Percent-decoding, as far as paths in a URL need it.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match hex.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(decoded) if byte == b'%' => {
                out.push(decoded);
                rest = &after[2..];
            }
            _ => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn config(ssl: &Ssl) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| ConnectError::Url(error.to_string()))?;
    if !ssl.verify {
        let unchecked = Arc::new(Unchecked(provider));
        return Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(unchecked)
            .with_no_client_auth());
    }
    let mut roots = RootCertStore::empty();
    match &ssl.root {
        Some(path) => {
            use rustls::pki_types::pem::PemObject;
            let unreadable =
                |error| ConnectError::Url(format!("sslrootcert {}: {error}", path.display()));
            let certificates = CertificateDer::pem_file_iter(path)
                .map_err(|error| unreadable(error.to_string()))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| unreadable(error.to_string()))?;
                roots
                    .add(certificate)
                    .map_err(|error| unreadable(error.to_string()))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(ConnectError::Url(
            "sslmode=verify-full needs root certificates: give sslrootcert=FILE in PEM".into(),
        ));
    }
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// `sslmode=require` and `prefer` encrypt without asking who answers, as libpq does.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssl_parameters_are_taken_out_of_either_form() {
        let (url, ssl) = take(
            "postgres://a@h/d?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fetc%2Fca.pem",
        )
        .expect("reads");
        assert_eq!(url, "postgres://a@h/d?connect_timeout=3");
        assert!(ssl.verify);
        assert_eq!(ssl.root, Some(PathBuf::from("/etc/ca.pem")));
        let (text, ssl) = take("host=h user=a sslmode=disable").expect("reads");
        assert_eq!(text, "host=h user=a");
        assert_eq!(ssl.mode, SslMode::Disable);
        assert!(take("postgres://h/d?sslmode=maybe").is_err());
    }
}
