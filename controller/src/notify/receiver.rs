//! Who is told of what, as a controller's configuration says it.

use std::path::{Path, PathBuf};

use lettre::message::Mailbox;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use squall_experiments::peer::{Peer, PeerHost};
use squall_experiments::quantity::Period;
use squall_experiments::url::HttpUrl;

use super::happening::{Happening, USUALLY, When};
use super::secret::Secret;
use super::story::Told;
use super::template::{Template, USUAL};
use super::webhook;
use crate::ask;

/// The port of a relay that takes messages from programs (RFC 6409).
const SUBMISSION: u16 = 587;

/// Somebody who is told of what happens: exactly one of `webhook`, `slack`, `email` and `grafana`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Receiver {
    /// What it is called: letters, digits, `-` and `_`.
    pub name: String,
    /// A program: JSON, signed as Standard Webhooks define it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<Webhook>,
    /// A channel of Slack, Mattermost, Rocket.Chat, or whatever else takes `{"text": …}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<Slack>,
    /// People, by e-mail through a relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<Email>,
    /// Annotations on Grafana's dashboards: each fault is a region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grafana: Option<Grafana>,
    /// Of what; unless said, of what wants somebody to look (of Grafana: when faults come and go).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Vec<When>>,
    /// Of runs, only those whose experiment has one of these tags.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The text, with places such as `{title}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// How long one attempt may take.
    #[serde(default = "ten_seconds")]
    pub timeout: Period,
}

/// A program that is told. Redirects are not followed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Webhook {
    /// Its address.
    pub url: String,
    /// The key of the signature: `whsec_` and 24 to 64 bytes in Base64.
    pub secret: Secret,
    /// The certificates (PEM) by which it is known; without them those that this machine trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Send it although somebody on the way can read it. No secret goes with it.
    #[serde(default)]
    pub insecure: bool,
}

/// A channel. Its address is a secret: whoever has it may write there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Slack {
    /// Where its address is.
    pub url: Secret,
    /// The certificates (PEM) by which it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// People with addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Email {
    /// The relay: `mail.example:587`; without a port 587, with `tls: tls` 465.
    pub relay: String,
    /// Who writes: `Squall <squall@shop.example>`.
    pub from: String,
    /// Who is written to.
    #[schemars(length(min = 1))]
    pub to: Vec<String>,
    /// How the way to the relay is encrypted.
    #[serde(default)]
    pub tls: Encryption,
    /// The user's name there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's password there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The certificates (PEM) by which the relay is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Send with `tls: none` although somebody on the way can read it. Never with a password.
    #[serde(default)]
    pub insecure: bool,
}

/// How the way to a relay is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// After the greeting; a relay that does not offer it gets nothing.
    #[default]
    Starttls,
    /// From the first byte.
    Tls,
    /// Not at all.
    None,
}

/// A Grafana.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Grafana {
    /// Its address, without `/api`.
    pub url: String,
    /// The token of a service account that may read and write annotations.
    pub token: Secret,
    /// Tags of every annotation, besides `squall` and `run:NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The certificates (PEM) by which it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

fn ten_seconds() -> Period {
    Period::from_secs(10)
}

/// Something wrong in a part: the keys to it, what, and what to do.
type Wrong = (&'static str, String, String);

impl Receiver {
    /// In a word, how it is told.
    pub fn kind(&self) -> &'static str {
        match self {
            Receiver { webhook: Some(_), .. } => "webhook",
            Receiver { slack: Some(_), .. } => "slack",
            Receiver { email: Some(_), .. } => "email",
            _ => "grafana",
        }
    }

    /// Of what it is told.
    pub fn when(&self) -> &[When] {
        match &self.when {
            Some(when) => when,
            None if self.grafana.is_some() => &[When::FaultInjected, When::FaultReverted],
            None => &USUALLY,
        }
    }

    /// Whether it is told of a happening.
    pub fn wants(&self, happening: &Happening, told: &Told) -> bool {
        let tagged = |tags: &Vec<String>| tags.iter().any(|tag| self.tags.contains(tag));
        let tagged = self.tags.is_empty() || told.tags.as_ref().is_none_or(tagged);
        // A region that nobody has closed ends with its run.
        let closes = self.grafana.is_some() && matches!(happening, Happening::RunEnded { .. });
        tagged && (closes || self.asked_for(happening))
    }

    /// Whether it was asked for by name.
    pub fn asked_for(&self, happening: &Happening) -> bool {
        happening.names().iter().any(|name| self.when().contains(name))
    }

    /// Its template; one that is wrong was refused at the start.
    pub fn template(&self) -> Template {
        let text = self.template.as_deref().unwrap_or(USUAL);
        Template::read(text).or_else(|_| Template::read(USUAL)).unwrap_or_default()
    }

    /// Relative paths begin at a folder.
    pub(crate) fn begin_at(&mut self, folder: &Path) {
        let mut secrets = Vec::new();
        let mut paths = Vec::new();
        if let Some(it) = &mut self.webhook {
            secrets.push(&mut it.secret);
            paths.extend(&mut it.ca);
        }
        if let Some(it) = &mut self.slack {
            secrets.push(&mut it.url);
            paths.extend(&mut it.ca);
        }
        if let Some(it) = &mut self.email {
            secrets.extend(&mut it.password);
            paths.extend(&mut it.ca);
        }
        if let Some(it) = &mut self.grafana {
            secrets.push(&mut it.token);
            paths.extend(&mut it.ca);
        }
        secrets.into_iter().for_each(|secret| secret.begin_at(folder));
        paths.into_iter().for_each(|path| *path = folder.join(&*path));
    }

    /// What is wrong with it, as far as the configuration alone tells.
    pub(crate) fn check(&self) -> Vec<Wrong> {
        let mut wrong = Vec::new();
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.chars().all(plain) {
            let what = format!("`{}` is no name of a receiver", self.name);
            wrong.push(("name", what, "take up to 64 letters, digits, `-` and `_`".to_owned()));
        }
        let kinds =
            [self.webhook.is_some(), self.slack.is_some(), self.email.is_some(), self.grafana.is_some()];
        if kinds.iter().filter(|is| **is).count() != 1 {
            let what = format!("`{}` must be told in one way", self.name);
            wrong.push(("name", what, "give it one of `webhook`, `slack`, `email`, `grafana`".to_owned()));
        }
        if self.when.as_ref().is_some_and(Vec::is_empty) {
            let what = format!("`{}` would never be told anything", self.name);
            wrong.push(("when", what, "say of what, or leave `when` out".to_owned()));
        }
        if let Some(Err(error)) = self.template.as_deref().map(Template::read) {
            wrong.push(("template", error.to_string(), error.help()));
        }
        if let Some(it) = &self.webhook {
            address(&mut wrong, "webhook.url", &it.url, it.insecure.then_some("insecure"));
            places(&mut wrong, "webhook.secret", &it.secret);
        }
        if let Some(it) = &self.slack {
            places(&mut wrong, "slack.url", &it.url);
        }
        if let Some(it) = &self.email {
            it.check(&mut wrong);
        }
        if let Some(it) = &self.grafana {
            address(&mut wrong, "grafana.url", &it.url, None);
            places(&mut wrong, "grafana.token", &it.token);
        }
        wrong
    }

    /// What keeps it from being told although its configuration is right: a secret that is not there, or is no key. Reads files.
    pub fn unusable(&self) -> Result<(), String> {
        let named = |why: String| format!("the receiver `{}` of notifications: {why}", self.name);
        let read = |secret: &Secret| secret.read().map_err(|error| named(error.to_string()));
        if let Some(it) = &self.webhook {
            webhook::key(&read(&it.secret)?).map_err(|error| named(error.to_string()))?;
        }
        if let Some(it) = &self.slack {
            // The address is not shown: it is the secret.
            let url = read(&it.url)?;
            url.expose()
                .parse::<HttpUrl>()
                .map_err(|_| named("what is kept as its `url` is none".to_owned()))?;
            if ask::is_readable_on_the_way(url.expose()) {
                return Err(named("its `url` is not encrypted and not on this machine".to_owned()));
            }
        }
        if let Some(password) = self.email.as_ref().and_then(|it| it.password.as_ref()) {
            read(password)?;
        }
        if let Some(it) = &self.grafana {
            read(&it.token)?;
        }
        Ok(())
    }
}

fn places(wrong: &mut Vec<Wrong>, key: &'static str, secret: &Secret) {
    if secret.file.is_some() == secret.env.is_some() {
        wrong.push((
            key,
            "a secret is in one place".to_owned(),
            "give it either `file:` or `env:`".to_owned(),
        ));
    }
}

/// Looks at an address; `insecure` is given where it may be plain.
fn address(wrong: &mut Vec<Wrong>, key: &'static str, url: &str, insecure: Option<&str>) {
    if let Err(error) = url.parse::<HttpUrl>() {
        wrong.push((key, error.what, error.help.unwrap_or_default()));
    } else if insecure.is_none() && ask::is_readable_on_the_way(url) {
        let what = format!("`{url}` is not encrypted and not on this machine");
        let help = match key {
            "webhook.url" => "write `https://`; with `insecure: true` it is sent all the same",
            _ => "write `https://`: a token goes with it",
        };
        wrong.push((key, what, help.to_owned()));
    }
}

impl Email {
    /// The relay's name or address, and its port.
    pub(super) fn at(&self) -> Option<(PeerHost, u16)> {
        let peer: Peer = self.relay.parse().ok()?;
        let port = match (peer.ports, self.tls) {
            (None, Encryption::Tls) => 465,
            (None, _) => SUBMISSION,
            (Some(ports), _) if ports.first == ports.last => ports.first,
            (Some(_), _) => return None,
        };
        (peer.host != PeerHost::Any).then_some((peer.host, port))
    }

    fn check(&self, wrong: &mut Vec<Wrong>) {
        match self.at() {
            None => {
                let what = format!("`{}` is no relay", self.relay);
                wrong.push(("email.relay", what, "write it as `mail.example:587`".to_owned()));
            }
            Some((host, _)) if self.tls == Encryption::None && ask::leaves_this_machine(&host) => {
                let what =
                    format!("the way to `{}` is not encrypted, and it is not on this machine", self.relay);
                if self.password.is_some() {
                    let help = "take `tls: starttls` or `tls: tls`: a password goes with it";
                    wrong.push(("email.tls", what, help.to_owned()));
                } else if !self.insecure {
                    let help =
                        "take `tls: starttls` or `tls: tls`; with `insecure: true` it is sent all the same";
                    wrong.push(("email.tls", what, help.to_owned()));
                }
            }
            Some(_) => {}
        }
        let mailbox = |key: &'static str, text: &str| {
            let read = text.parse::<Mailbox>().err();
            let help = "write it as `ops@shop.example` or `Ops <ops@shop.example>`";
            read.map(|error| (key, format!("`{text}` is no e-mail address: {error}"), help.to_owned()))
        };
        wrong.extend(mailbox("email.from", &self.from));
        wrong.extend(self.to.iter().filter_map(|to| mailbox("email.to", to)));
        if self.user.is_some() != self.password.is_some() {
            let what = "a user has a password, and a password a user".to_owned();
            wrong.push(("email.user", what, "give both, or none".to_owned()));
        }
        if let Some(password) = &self.password {
            places(wrong, "email.password", password);
        }
    }
}
