//! Questions of DNS: which of them are meant, and what they are answered instead.

use std::net::IpAddr;

use hickory_resolver::proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use squall_experiments::ailment::Answered;

/// What a datagram may hold without being cut into fragments (DNS flag day 2020).
const DATAGRAM: u16 = 1232;

/// A name as it is compared: in small letters, without the last dot, as it is on the wire.
pub fn normal(name: &str) -> String {
    let wire = Name::from_utf8(name).map_or_else(|_| name.to_owned(), |name| name.to_ascii());
    wire.trim_end_matches('.').to_ascii_lowercase()
}

/// The question in a message, if it is one for one of these names. What cannot be read is none.
pub fn about(message: &[u8], names: &[String]) -> Option<Message> {
    let message = Message::from_vec(message).ok()?;
    let is_question =
        message.metadata.message_type == MessageType::Query && message.metadata.op_code == OpCode::Query;
    let [query] = &message.queries[..] else { return None };
    let asked = query.name().to_ascii();
    let asked = asked.trim_end_matches('.');
    (is_question && names.iter().any(|name| name.eq_ignore_ascii_case(asked))).then_some(message)
}

/// What is said instead of the server's answer; `None` is nothing. Nobody may keep it: addresses live for no time, and
/// without a record of the zone a negative answer is not kept either (RFC 2308 section 5).
pub fn answer(question: &Message, answered: &Answered) -> Option<Vec<u8>> {
    let mut said = Message::response(question.metadata.id, question.metadata.op_code);
    said.metadata.recursion_desired = question.metadata.recursion_desired;
    said.metadata.recursion_available = true;
    said.add_queries(question.queries.iter().cloned());
    match answered {
        Answered::Nxdomain => said.metadata.response_code = ResponseCode::NXDomain,
        Answered::Servfail => said.metadata.response_code = ResponseCode::ServFail,
        Answered::Timeout => return None,
        Answered::Wrong(address) => {
            for query in &question.queries {
                let data = match (query.query_type(), address) {
                    (RecordType::A, IpAddr::V4(address)) => RData::A((*address).into()),
                    (RecordType::AAAA, IpAddr::V6(address)) => RData::AAAA((*address).into()),
                    // It has that name, and nothing of this kind.
                    _ => continue,
                };
                said.add_answer(Record::from_rdata(query.name().clone(), 0, data));
            }
        }
    }
    if question.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(DATAGRAM);
        said.set_edns(edns);
    }
    said.to_vec().ok()
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::Query;
    use proptest::prelude::*;

    use super::*;

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_utf8(name).unwrap(), kind));
        message.to_vec().unwrap()
    }

    fn answered(kind: RecordType, how: &Answered) -> Option<Message> {
        let names = [normal("Shop.Internal.")];
        let asked = about(&question("sHop.internal.", kind), &names).expect("it is meant");
        answer(&asked, how).map(|bytes| Message::from_vec(&bytes).expect("an answer"))
    }

    #[test]
    fn a_name_is_meant_and_its_neighbours_are_not() {
        let names = [normal("Shop.Internal."), normal("bücher.example")];
        for name in ["shop.internal.", "SHOP.internal.", "xn--bcher-kva.example."] {
            assert!(about(&question(name, RecordType::A), &names).is_some(), "{name}");
        }
        for name in ["internal.", "a.shop.internal.", "shop.internal.example.", "."] {
            assert!(about(&question(name, RecordType::A), &names).is_none(), "{name}");
        }
    }

    #[test]
    fn what_is_answered_is_what_was_asked_for_and_lives_for_no_time() {
        for (how, code) in
            [(Answered::Nxdomain, ResponseCode::NXDomain), (Answered::Servfail, ResponseCode::ServFail)]
        {
            let said = answered(RecordType::A, &how).expect("an answer");
            assert_eq!((said.metadata.id, said.metadata.response_code), (7, code));
            assert!(said.answers.is_empty() && said.authorities.is_empty());
        }
        assert!(answered(RecordType::A, &Answered::Timeout).is_none());
        let wrong = Answered::Wrong("10.9.9.9".parse().unwrap());
        let said = answered(RecordType::A, &wrong).expect("an answer");
        assert_eq!(said.answers[0].data.ip_addr(), Some("10.9.9.9".parse().unwrap()));
        assert_eq!(said.answers[0].ttl, 0);
        let said = answered(RecordType::AAAA, &wrong).expect("an answer");
        assert_eq!((said.metadata.response_code, said.answers.len()), (ResponseCode::NoError, 0));
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..600), flip in 0usize..40) {
            let names = [normal("shop.internal")];
            if let Some(question) = about(&bytes, &names) {
                let _ = answer(&question, &Answered::Nxdomain);
            }
            let mut asked = question("shop.internal.", RecordType::A);
            let at = flip % asked.len();
            asked[at] ^= bytes.first().copied().unwrap_or(1);
            if let Some(question) = about(&asked, &names) {
                let _ = answer(&question, &Answered::Wrong(IpAddr::from([10, 0, 0, 1])));
            }
        }
    }
}
