//! What is noted of a question to a name server; it is kept when it is over.

use std::net::SocketAddr;
use std::sync::Arc;

use hickory_resolver::proto::op::Message;

use crate::host::queue::pace::now;
use crate::probe::dns::rcode;
use crate::proxy::caller::Asked;
use crate::proxy::observations::{Lookup, Observations, Record, cut};

/// Notes on one question. They are kept when this value goes; without an answer until then there was none.
pub(super) struct Sighting {
    observations: Arc<Observations>,
    caller: Asked,
    record: Lookup,
}

impl Sighting {
    /// Of a question that has just come over `udp` or `tcp`; `None` where nobody wants to know.
    pub(super) fn of(
        question: &[u8],
        observations: &Arc<Observations>,
        (client, server): (SocketAddr, SocketAddr),
        (over, caller): (&'static str, Asked),
    ) -> Option<Self> {
        if !observations.on() {
            return None;
        }
        let message = Message::from_vec(question).ok();
        let query = message.as_ref().and_then(|message| message.queries.first());
        let record = Lookup {
            proxy: server.to_string(),
            client: client.to_string(),
            over,
            name: query.map(|query| cut(&query.name().to_ascii())).unwrap_or_default(),
            kind: query.map(|query| query.query_type().to_string()).unwrap_or_default(),
            asked_us: now() / 1000,
            how: "unanswered",
            ..Lookup::default()
        };
        Some(Sighting { observations: observations.clone(), caller, record })
    }

    /// The fault was done to it, whether by an answer or by none.
    pub(super) fn harmed(&mut self) {
        self.record.faults = vec!["dns".to_owned()];
        self.record.how = "fault";
    }

    /// It was answered so.
    pub(super) fn answered(&mut self, said: &[u8]) {
        self.record.answered_us = now() / 1000;
        if let Ok(message) = Message::from_vec(said) {
            self.record.code = rcode(message.metadata.response_code);
            self.record.answers = message.answers.len();
        }
        if self.record.faults.is_empty() {
            self.record.how = "answered";
        }
    }
}

impl Drop for Sighting {
    fn drop(&mut self) {
        let record = std::mem::take(&mut self.record);
        self.observations.push(Record::Lookup(record), std::mem::take(&mut self.caller));
    }
}
