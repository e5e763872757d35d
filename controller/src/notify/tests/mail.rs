//! E-mail through a relay on loopback that speaks SMTP (RFC 5321) with STARTTLS and AUTH, as far as a client sees it.

use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, BufReader};
use tokio_rustls::TlsAcceptor;

use super::*;

/// What a relay offers and how it takes a message.
#[derive(Clone, Default)]
struct Manner {
    tls: Option<TlsAcceptor>,
    auth: bool,
    /// What it says of a recipient; usually that he is there.
    recipient: Option<&'static str>,
}

/// Everything that clients said, and whether they said it over TLS.
type Said = Arc<Mutex<Vec<(bool, String)>>>;

async fn relay(manner: Manner) -> (SocketAddr, Said) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("it listens");
    let at = listener.local_addr().expect("an address");
    let said: Said = Arc::default();
    let theirs = Arc::clone(&said);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"220 relay.example ESMTP\r\n").await;
            let (manner, said) = (manner.clone(), Arc::clone(&theirs));
            tokio::spawn(async move {
                if talk(&mut stream, &manner, false, &said).await
                    && let Some(tls) = &manner.tls
                    && let Ok(mut stream) = tls.accept(stream).await
                {
                    talk(&mut stream, &manner, true, &said).await;
                }
            });
        }
    });
    (at, said)
}

/// Talks until the client goes; `true` where it wants to go on encrypted.
async fn talk(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    manner: &Manner,
    encrypted: bool,
    said: &Said,
) -> bool {
    let mut stream = BufReader::new(stream);
    let (mut line, mut in_data) = (String::new(), false);
    loop {
        line.clear();
        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
            return false;
        }
        let text = line.trim_end_matches("\r\n").to_owned();
        said.lock().expect("nobody panics with it").push((encrypted, text.clone()));
        let answer = match text.split(' ').next().unwrap_or_default() {
            "." if in_data => {
                in_data = false;
                "250 kept as 4711"
            }
            _ if in_data => continue,
            "EHLO" if manner.tls.is_some() && !encrypted => "250-relay.example\r\n250 STARTTLS",
            "EHLO" if manner.auth => "250-relay.example\r\n250 AUTH PLAIN",
            "EHLO" => "250 relay.example",
            "STARTTLS" => "220 go ahead",
            "AUTH" => "235 it is you",
            "RCPT" => manner.recipient.unwrap_or("250 he is here"),
            "DATA" => {
                in_data = true;
                "354 go on"
            }
            "QUIT" => "221 bye",
            _ => "250 well",
        };
        let _ = stream.get_mut().write_all(format!("{answer}\r\n").as_bytes()).await;
        if text == "STARTTLS" {
            return true;
        }
    }
}

/// A certificate for loopback, and whoever shows it.
fn certificate() -> (String, TlsAcceptor) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("it fits its key");
    (made.cert.pem(), TlsAcceptor::from(Arc::new(config)))
}

fn mail(at: SocketAddr, more: &str) -> String {
    format!(
        "{{ name: people, email: {{ relay: \"{at}\", from: \"Squall <squall@shop.example>\", \
         to: [ops@shop.example, \"Ada <ada@shop.example>\"], {more} }}, when: [run-ended], timeout: 60s }}"
    )
}

fn lines(said: &Said) -> Vec<String> {
    said.lock().expect("nobody panics with it").iter().map(|(_, line)| line.clone()).collect()
}

#[tokio::test]
async fn a_relay_gets_a_message_to_everybody_over_tls_with_its_password() {
    let place = Place::new();
    let (pem, tls) = certificate();
    place.file("ca.pem", &pem);
    place.file("password", "correct horse\n");
    let (at, said) = relay(Manner { tls: Some(tls), auth: true, ..Manner::default() }).await;
    let line = mail(at, "user: squall, password: { file: password }, ca: ca.pem");
    let notifier = place.notifier(&[line]);
    let title = "Caf\u{e9} is\u{7}\r\nBcc: mallory@example.org".to_owned();
    place.store.new_run(crate::store::NewRun { title, ..a_run("r1") }).await.expect("a run");
    place.store.set_run_state("r1", "deviated", 0).await.expect("it ends");
    let running = runs(&notifier);
    until("it to be taken", async || (of(&notifier, "people").await.sent == 1).then_some(())).await;
    let heard = said.lock().expect("nobody panics with it").clone();
    // base64 of NUL squall NUL correct horse
    let login = "AUTH PLAIN AHNxdWFsbABjb3JyZWN0IGhvcnNl";
    for needed in
        [login, "MAIL FROM:<squall@shop.example>", "RCPT TO:<ops@shop.example>", "RCPT TO:<ada@shop.example>"]
    {
        let found = heard.iter().find(|(_, line)| line.starts_with(needed));
        assert!(found.is_some_and(|(encrypted, _)| *encrypted), "{needed}: {heard:?}");
    }
    assert!(!heard.iter().any(|(_, line)| line.to_lowercase().starts_with("bcc")), "{heard:?}");
    assert!(!lines(&said).concat().contains("mallory@example.org>"), "{heard:?}");
    let id = heard.iter().find_map(|(_, line)| line.strip_prefix("Message-ID: ")).expect("a name");
    assert!(id.starts_with("<msg_") && id.ends_with("@shop.example>"), "{id}");
    assert!(
        lines(&said).iter().any(|line| line.contains("https://squall.example:8416/runs/r1")),
        "{heard:?}"
    );
    running.abort();
}

#[tokio::test]
async fn a_relay_that_is_not_trusted_or_offers_no_tls_gets_neither_message_nor_password() {
    let place = Place::new();
    let (_, tls) = certificate();
    let (other, _) = certificate();
    place.file("ca.pem", &other);
    place.file("password", "correct horse\n");
    for tls in [Some(tls), None] {
        let (at, said) = relay(Manner { tls, auth: true, ..Manner::default() }).await;
        let line = mail(at, "user: squall, password: { file: password }, ca: ca.pem");
        let came = place.notifier(&[line]).trial("people", "ada").await;
        assert!(matches!(came, Some(Attempt::Later { .. })), "{came:?}");
        let said = lines(&said);
        assert!(!said.iter().any(|line| line.starts_with("AUTH") || line.starts_with("MAIL")), "{said:?}");
    }
}

#[tokio::test]
async fn what_a_relay_refuses_for_ever_is_given_up_and_what_it_refuses_for_now_is_not() {
    let place = Place::new();
    for (recipient, for_ever) in [("550 nobody of that name", true), ("451 later, please", false)] {
        let (at, said) = relay(Manner { recipient: Some(recipient), ..Manner::default() }).await;
        let came =
            place.notifier(&[mail(at, "tls: none")]).trial("people", "ada").await.expect("it is there");
        let why = match (came, for_ever) {
            (Attempt::Never(why), true) | (Attempt::Later { why, .. }, false) => why,
            (other, _) => panic!("{recipient}: {other:?}"),
        };
        assert!(why.contains(&recipient[..3]), "{why}");
        assert!(!lines(&said).iter().any(|line| line == "DATA"));
    }
    let (at, _) = relay(Manner::default()).await;
    let came = place.notifier(&[mail(at, "tls: none")]).trial("people", "ada").await;
    assert_eq!(came, Some(Attempt::Taken("the relay answered 250: kept as 4711".to_owned())));
}
