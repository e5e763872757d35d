//! Joining and connecting.
//!
//! The controller is known by its authority's certificate alone: before this host belongs to the fleet by the fingerprint
//! in the token, after that by the fingerprint of what it was given. The name in the controller's certificate is the same
//! in every fleet, so that it may be reached by any name or address.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rcgen::{KeyPair, PublicKeyData, SigningKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use squall_experiments::fleet::frame::LONGEST_FRAME;
use squall_experiments::fleet::{CONTROLLER, Frame, Join, JoinToken, Joined, hex, proof};
use squall_experiments::protocol::Refusal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::identity::Membership;
use super::options::Uplink;

/// How long one address may take to be connected to.
pub const CONNECTING: Duration = Duration::from_secs(5);
/// The same while a lease goes on: a kernel asks a second time after one second, and then ever more rarely.
pub const HURRIED: Duration = Duration::from_millis(900);
/// How long it may take from there to an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a connection is made of: TLS over TCP, or what stands for it in a simulation.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Wire for S {}

/// A connection to a controller.
pub type Socket = WebSocketStream<Box<dyn Wire>>;

/// That the controller cannot be reached, and why.
pub fn unreached(why: impl std::fmt::Display) -> Refusal {
    Refusal::new(format!("the controller cannot be reached: {why}"), "this host dials again")
}

/// Asks to belong to the fleet of the token.
pub async fn join(
    addresses: &[SocketAddr],
    uplink: &Uplink,
    token: &JoinToken,
    key: &KeyPair,
) -> Result<Joined, Refusal> {
    let configuration = configuration(*token.authority(), None).map_err(unreached)?;
    let mut socket = connect(addresses, configuration, CONNECTING).await.map_err(unreached)?;
    let point = hex(key.der_bytes());
    let signature = key.sign(&proof(token, &uplink.name, &point)).map_err(unreached)?;
    let join = Frame::Join(Join {
        token: token.secret(),
        name: uplink.name.clone(),
        key: point,
        proof: hex(&signature),
        labels: uplink.labels.clone(),
        zone: uplink.zone.clone(),
        cell: uplink.cell.clone(),
    });
    match ask(&mut socket, &join).await? {
        Frame::Joined(joined) if fingerprint(&joined.authority) == Some(*token.authority()) => Ok(joined),
        Frame::Refused(refusal) => Err(refusal),
        _ => Err(unreached("it gave another answer than was asked for")),
    }
}

/// Connects as a member. Each address may take `connecting` to be connected to.
pub async fn member(
    addresses: &[SocketAddr],
    membership: &Membership,
    key: &KeyPair,
    connecting: Duration,
) -> Result<Socket, Refusal> {
    let Joined { certificate, authority, .. } = &membership.joined;
    let authority = fingerprint(authority).ok_or_else(|| unreached("its authority is not understood"))?;
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes());
    let certificate = certificate.map_err(|_| unreached("this host's certificate is not understood"))?;
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let configuration = configuration(authority, Some((certificate, key))).map_err(unreached)?;
    connect(addresses, configuration, connecting).await.map_err(unreached)
}

/// Says something and gives the answer.
pub async fn ask(socket: &mut Socket, frame: &Frame) -> Result<Frame, Refusal> {
    let asked = async {
        socket.send(Message::text(frame.text())).await.map_err(unreached)?;
        match socket.next().await {
            Some(Ok(Message::Text(text))) => Frame::read(&text).map_err(unreached),
            Some(Err(error)) => Err(unreached(error)),
            _ => Err(unreached("it closed the connection")),
        }
    };
    timeout(PATIENCE, asked).await.unwrap_or_else(|_| Err(unreached("it does not answer")))
}

async fn connect(
    addresses: &[SocketAddr],
    configuration: Arc<ClientConfig>,
    connecting: Duration,
) -> io::Result<Socket> {
    let mut last = io::Error::other("it has no address");
    for address in addresses {
        match timeout(connecting, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                let shaken = timeout(PATIENCE, shake(stream, configuration.clone())).await;
                match shaken.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(socket) => return Ok(socket),
                    Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
                }
            }
            Ok(Err(error)) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
            Err(_) => {
                last = io::Error::new(io::ErrorKind::TimedOut, format!("{address}: it does not answer"))
            }
        }
    }
    Err(last)
}

async fn shake(stream: TcpStream, configuration: Arc<ClientConfig>) -> io::Result<Socket> {
    stream.set_nodelay(true)?;
    let name = ServerName::try_from(CONTROLLER).map_err(io::Error::other)?;
    over(Box::new(TlsConnector::from(configuration).connect(name, stream).await?)).await
}

/// Begins to speak as a host over a connection that is there.
pub async fn over(stream: Box<dyn Wire>) -> io::Result<Socket> {
    let buffers = WebSocketConfig::default()
        .read_buffer_size(4096)
        .write_buffer_size(4096)
        .max_message_size(Some(LONGEST_FRAME))
        .max_frame_size(Some(LONGEST_FRAME));
    let url = format!("wss://{CONTROLLER}/agents");
    let shaken = tokio_tungstenite::client_async_with_config(url, stream, Some(buffers)).await;
    shaken.map(|(socket, _)| socket).map_err(io::Error::other)
}

fn configuration(
    authority: [u8; 32],
    own: Option<(CertificateDer<'static>, PrivateKeyDer<'static>)>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let pinned = Arc::new(Pinned { authority, provider: provider.clone() });
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?.dangerous();
    let builder = builder.with_custom_certificate_verifier(pinned);
    let mut configuration = match own {
        Some((certificate, key)) => builder.with_client_auth_cert(vec![certificate], key)?,
        None => builder.with_no_client_auth(),
    };
    configuration.resumption = Resumption::disabled();
    Ok(Arc::new(configuration))
}

/// The SHA-256 of a certificate in PEM.
fn fingerprint(pem: &str) -> Option<[u8; 32]> {
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().and_then(|certificate| sha256(&certificate))
}

/// By the implementation that TLS uses.
fn sha256(bytes: &[u8]) -> Option<[u8; 32]> {
    let suite = ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    suite.tls13()?.common.hash_provider.hash(bytes).as_ref().try_into().ok()
}

/// Trusts the one authority with this fingerprint, which the controller sends along, and what it has issued to servers.
#[derive(Debug)]
struct Pinned {
    authority: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates.iter().find(|one| sha256(one) == Some(self.authority));
        let authority = authority.ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), self.provider.clone());
        let verifier = verifier.build().map_err(|error| rustls::Error::General(error.to_string()))?;
        verifier.verify_server_cert(certificate, &[], name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
