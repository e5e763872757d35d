//! People are told by e-mail, through a relay.

use std::time::{Duration, UNIX_EPOCH};

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use squall_experiments::peer::PeerHost;

use super::attempt::Attempt;
use super::receiver::{Email, Encryption, Receiver};
use super::story::Told;

pub(super) async fn tell(email: &Email, receiver: &Receiver, told: &Told) -> Attempt {
    let message = match message(email, receiver, told) {
        Ok(message) => message,
        Err(why) => return Attempt::Never(why),
    };
    let relay = match relay(email, receiver.timeout.get()) {
        Ok(relay) => relay,
        Err(why) => return Attempt::later(why),
    };
    match relay.send(message).await {
        Ok(response) => {
            let said: Vec<&str> = response.message().collect();
            Attempt::Taken(format!("the relay answered {}: {}", response.code(), said.join(" ")))
        }
        Err(error) if error.is_permanent() => Attempt::Never(format!("the relay refuses: {}", whole(&error))),
        Err(error) => Attempt::later(format!("the relay does not take it: {}", whole(&error))),
    }
}

/// An error with its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let next_text = next.to_string();
        if !text.contains(&next_text) {
            text = format!("{text}: {next_text}");
        }
        cause = next.source();
    }
    text
}

fn message(email: &Email, receiver: &Receiver, told: &Told) -> Result<Message, String> {
    let mailbox = |text: &str| text.parse::<Mailbox>().map_err(|error| format!("`{text}`: {error}"));
    let from = mailbox(&email.from)?;
    // By the same name, programs show a message once that was sent twice.
    let id = format!("<{}@{}>", told.id, from.email.domain());
    let mut builder = Message::builder()
        .from(from)
        .subject(format!("[squall] {}", told.title))
        .message_id(Some(id))
        .date(UNIX_EPOCH + Duration::from_millis(told.at))
        .header(ContentType::TEXT_PLAIN);
    for to in &email.to {
        builder = builder.to(mailbox(to)?);
    }
    let text = receiver.template().fill(told, str::to_owned) + "\n";
    builder.body(text).map_err(|error| error.to_string())
}

fn relay(email: &Email, timeout: Duration) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let (host, port) = email.at().ok_or_else(|| format!("`{}` is no relay", email.relay))?;
    let host = match host {
        PeerHost::Net(address, _) => address.to_string(),
        named => named.to_string(),
    };
    let mut tls = TlsParameters::builder(host.clone());
    if let Some(ca) = &email.ca {
        let pem = std::fs::read(ca).map_err(|error| format!("`{}`: {error}", ca.display()))?;
        let certificate = Certificate::from_pem(&pem);
        tls = tls.add_root_certificate(certificate.map_err(|error| format!("`{}`: {error}", ca.display()))?);
    }
    let parameters = || tls.build().map_err(|error| whole(&error));
    let tls = match email.tls {
        Encryption::Starttls => Tls::Required(parameters()?),
        Encryption::Tls => Tls::Wrapper(parameters()?),
        Encryption::None => Tls::None,
    };
    let mut relay = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host)
        .port(port)
        .tls(tls)
        .timeout(Some(timeout))
        .hello_name(hello());
    if let (Some(user), Some(password)) = (&email.user, &email.password) {
        let password = password.read().map_err(|error| error.to_string())?;
        relay = relay.credentials(Credentials::new(user.clone(), password.expose().to_owned()));
    }
    Ok(relay.build())
}

/// What this machine calls itself to a relay.
fn hello() -> ClientId {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let plain = |name: &String| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.'))
    };
    name.filter(plain).map_or_else(ClientId::default, ClientId::Domain)
}
