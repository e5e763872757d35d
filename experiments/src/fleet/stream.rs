//! One stream, without its sockets: order, and how much may be under way.
//!
//! WebSocket and TLS keep order already. That a number is not the next one therefore means a peer that is broken or
//! lies: the stream ends, and nothing is handed on twice.
//!
//! A stream outlives its connection for [`HOLD`]: what was not acknowledged is kept by whoever sent it, and is sent again
//! on the next connection from where the other side says that it is ([`Held`]).

use std::collections::VecDeque;
use std::time::Duration;

use super::frame::{Held, LONGEST_TEXT};

/// How long a stream waits for another connection of the same host before it ends. What was begun over it has a lease of
/// its own, which goes on meanwhile.
pub const HOLD: Duration = Duration::from_secs(10);

/// What may be under way in one direction of a stream: what is sent and not known to be handed on.
pub const WINDOW: usize = 256 << 10;
/// What a frame costs beside its text: many short ones must not fill the memory either.
const COST: usize = 64;

/// What a peer did that ends a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It came before.
    #[error("text {0} of the stream came a second time")]
    Replayed(u64),
    /// Something is missing before it.
    #[error("text {came} of the stream came where {expected} was to come")]
    Gap {
        /// What came.
        came: u64,
        /// What was the next.
        expected: u64,
    },
    /// See [`WINDOW`].
    #[error("more of the stream came than was asked for")]
    Overrun,
    /// See [`LONGEST_TEXT`].
    #[error("{0} bytes of the stream are too long for one frame")]
    TooLong(usize),
    /// After its end.
    #[error("text came after the end of the stream")]
    AfterEnd,
    /// What was acknowledged was never sent.
    #[error("text {0} of the stream was acknowledged and never sent")]
    NeverSent(u64),
    /// After another connection: what is not there any more was acknowledged.
    #[error("text {0} of the stream was acknowledged, and is wanted again")]
    Forgotten(u64),
    /// It is no text.
    #[error("the stream is not UTF-8")]
    NotText,
}

/// What the other side of another connection has not got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// Texts with their numbers.
    pub texts: Vec<(u64, String)>,
    /// The number of the end, where that is to be said again.
    pub end: Option<u64>,
}

/// What is sent on a stream.
#[derive(Debug, Default)]
pub struct Outgoing {
    last: u64,
    under_way: VecDeque<(u64, String)>,
    held: usize,
    ended: bool,
}

impl Outgoing {
    /// How many bytes of text may be sent now, in one frame.
    pub fn room(&self) -> usize {
        WINDOW.saturating_sub(self.held + COST).min(LONGEST_TEXT)
    }

    /// Takes the number for a text, no longer than there is [room](Self::room) for, and keeps it until it is
    /// acknowledged.
    pub fn send(&mut self, text: String) -> u64 {
        self.last += 1;
        self.held += text.len() + COST;
        self.under_way.push_back((self.last, text));
        self.last
    }

    /// Takes the number for the end of this direction.
    pub fn end(&mut self) -> u64 {
        self.ended = true;
        self.last + 1
    }

    /// Everything up to this number was handed on.
    pub fn acknowledged(&mut self, seq: u64) -> Result<(), Fault> {
        if seq > self.last {
            return Err(Fault::NeverSent(seq));
        }
        while let Some((first, text)) = self.under_way.front()
            && *first <= seq
        {
            self.held -= text.len() + COST;
            self.under_way.pop_front();
        }
        Ok(())
    }

    /// Whether everything was handed on.
    pub fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// What the other side of another connection has not got.
    pub fn missing(&self, theirs: &Held) -> Result<Missing, Fault> {
        if theirs.received > self.last {
            return Err(Fault::NeverSent(theirs.received));
        }
        let oldest = self.under_way.front().map_or(self.last + 1, |(first, _)| *first);
        if theirs.received + 1 < oldest {
            return Err(Fault::Forgotten(theirs.received + 1));
        }
        let texts = self.under_way.iter().filter(|(seq, _)| *seq > theirs.received).cloned();
        Ok(Missing { texts: texts.collect(), end: (self.ended && !theirs.ended).then_some(self.last + 1) })
    }
}

/// What comes on a stream.
#[derive(Debug, Default)]
pub struct Incoming {
    last: u64,
    waiting: VecDeque<(u64, usize)>,
    held: usize,
    handed: u64,
    ended: bool,
}

impl Incoming {
    /// Takes what came, to be handed on.
    pub fn take(&mut self, seq: u64, length: usize) -> Result<(), Fault> {
        if self.ended {
            return Err(Fault::AfterEnd);
        }
        self.next(seq)?;
        if length > LONGEST_TEXT {
            return Err(Fault::TooLong(length));
        }
        if self.held + length + COST > WINDOW {
            return Err(Fault::Overrun);
        }
        self.last = seq;
        self.held += length + COST;
        self.waiting.push_back((seq, length + COST));
        Ok(())
    }

    /// Takes the end of this direction.
    pub fn end(&mut self, seq: u64) -> Result<(), Fault> {
        if self.ended {
            return Err(Fault::AfterEnd);
        }
        self.next(seq)?;
        self.ended = true;
        Ok(())
    }

    fn next(&self, seq: u64) -> Result<(), Fault> {
        match self.last + 1 {
            expected if expected == seq => Ok(()),
            expected if seq < expected => Err(Fault::Replayed(seq)),
            expected => Err(Fault::Gap { came: seq, expected }),
        }
    }

    /// The oldest that waits has been handed on: its number, to be acknowledged.
    pub fn handed_on(&mut self) -> Option<u64> {
        let (seq, cost) = self.waiting.pop_front()?;
        self.held -= cost;
        self.handed = seq;
        Some(seq)
    }

    /// The last number that was handed on; 0 where nothing was. Said again on another connection: what was said on the one
    /// before may be lost.
    pub fn handed(&self) -> u64 {
        self.handed
    }

    /// How far this direction is, for the other side of another connection.
    pub fn held(&self, stream: u64) -> Held {
        Held { stream, received: self.last, ended: self.ended }
    }
}

/// How many of these bytes are whole characters; what is missing at the end may still come.
pub fn whole(bytes: &[u8]) -> Result<usize, Fault> {
    match std::str::from_utf8(bytes) {
        Ok(_) => Ok(bytes.len()),
        Err(error) if error.error_len().is_none() => Ok(error.valid_up_to()),
        Err(_) => Err(Fault::NotText),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_replayed_reordered_or_missing_ends_the_stream_and_is_not_taken() {
        let mut incoming = Incoming::default();
        incoming.take(1, 5).unwrap();
        incoming.take(2, 5).unwrap();
        assert_eq!(incoming.take(2, 5), Err(Fault::Replayed(2)));
        assert_eq!(incoming.take(1, 5), Err(Fault::Replayed(1)));
        assert_eq!(incoming.take(4, 5), Err(Fault::Gap { came: 4, expected: 3 }));
        assert_eq!(incoming.take(0, 5), Err(Fault::Replayed(0)));
        assert_eq!(incoming.end(4), Err(Fault::Gap { came: 4, expected: 3 }));
        assert_eq!(
            [incoming.handed_on(), incoming.handed_on(), incoming.handed_on()],
            [Some(1), Some(2), None]
        );
        incoming.end(3).unwrap();
        assert_eq!(incoming.take(3, 5), Err(Fault::AfterEnd));
        assert_eq!(incoming.end(3), Err(Fault::AfterEnd));
    }

    #[test]
    fn who_sends_more_than_there_is_room_for_is_refused() {
        let mut incoming = Incoming::default();
        assert_eq!(incoming.take(1, LONGEST_TEXT + 1), Err(Fault::TooLong(LONGEST_TEXT + 1)));
        let full = (1..).find(|seq| incoming.take(*seq, LONGEST_TEXT).is_err()).unwrap();
        assert_eq!(incoming.take(full, LONGEST_TEXT), Err(Fault::Overrun));
        incoming.handed_on();
        incoming.take(full, LONGEST_TEXT).unwrap();
        let mut empty = Incoming::default();
        let many = (1..).find(|seq| empty.take(*seq, 0).is_err()).unwrap();
        assert!(many < 10_000, "empty frames cost nothing");
    }

    #[test]
    fn only_what_was_sent_is_acknowledged() {
        let mut outgoing = Outgoing::default();
        assert_eq!(outgoing.acknowledged(1), Err(Fault::NeverSent(1)));
        let text = || "abc".to_owned();
        assert_eq!((outgoing.send(text()), outgoing.send(text()), outgoing.end()), (1, 2, 3));
        outgoing.acknowledged(2).unwrap();
        // Once more, or an older one: that is nothing new.
        outgoing.acknowledged(1).unwrap();
        assert_eq!(outgoing.acknowledged(3), Err(Fault::NeverSent(3)));
        assert!(outgoing.is_empty());
    }

    #[test]
    fn on_another_connection_what_is_missing_is_sent_again_and_nothing_else() {
        let mut outgoing = Outgoing::default();
        for text in ["a", "b", "c", "d"] {
            outgoing.send(text.to_owned());
        }
        outgoing.acknowledged(1).unwrap();
        let at = |received, ended| Held { stream: 7, received, ended };
        let texts = |from: u64, texts: &[&str]| Missing {
            texts: (from..).zip(texts.iter().map(|text| (*text).to_owned())).collect(),
            end: None,
        };
        let ended = Missing { end: Some(5), ..Missing::default() };
        assert_eq!(outgoing.missing(&at(2, false)), Ok(texts(3, &["c", "d"])));
        assert_eq!(outgoing.missing(&at(1, false)), Ok(texts(2, &["b", "c", "d"])));
        assert_eq!(outgoing.missing(&at(4, false)), Ok(Missing::default()));
        assert_eq!(outgoing.missing(&at(0, false)), Err(Fault::Forgotten(1)));
        assert_eq!(outgoing.missing(&at(5, false)), Err(Fault::NeverSent(5)));
        assert_eq!(outgoing.end(), 5);
        assert_eq!(outgoing.missing(&at(4, false)), Ok(ended));
        assert_eq!(outgoing.missing(&at(4, true)), Ok(Missing::default()));
    }

    #[test]
    fn text_is_cut_between_characters() {
        let bytes = "aé€𝄞".as_bytes();
        for (length, kept) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3), (6, 6), (7, 6), (9, 6), (10, 10)] {
            assert_eq!(whole(&bytes[..length]), Ok(kept), "{length}");
        }
        assert_eq!(whole(b"a\xff"), Err(Fault::NotText));
        assert_eq!(whole(b"\xe2\x28"), Err(Fault::NotText));
    }

    proptest! {
        /// Whatever is sent and handed on in whatever order of the two: who keeps to the room is never refused, and every
        /// number is acknowledged once, in order.
        #[test]
        fn who_keeps_to_the_room_is_never_refused(steps in prop::collection::vec((any::<bool>(), 0..LONGEST_TEXT * 2), 1..300)) {
            let (mut outgoing, mut incoming) = (Outgoing::default(), Incoming::default());
            let mut acknowledged = 0;
            for (send, wanted) in steps {
                if send {
                    let length = wanted.min(outgoing.room());
                    if outgoing.room() > 0 {
                        let seq = outgoing.send("x".repeat(length));
                        prop_assert_eq!(incoming.take(seq, length), Ok(()));
                    }
                } else if let Some(seq) = incoming.handed_on() {
                    prop_assert_eq!(seq, acknowledged + 1);
                    acknowledged = seq;
                    prop_assert_eq!(outgoing.acknowledged(seq), Ok(()));
                }
            }
            while let Some(seq) = incoming.handed_on() {
                prop_assert_eq!(outgoing.acknowledged(seq), Ok(()));
            }
            prop_assert_eq!(outgoing.room(), LONGEST_TEXT);
        }

        /// However often connections break, whatever is lost with them: everything comes, once and in order.
        #[test]
        fn whatever_is_lost_with_connections_comes_once_and_in_order(
            steps in prop::collection::vec((0..5u8, 0..4000usize), 1..300),
        ) {
            let (mut outgoing, mut incoming) = (Outgoing::default(), Incoming::default());
            // What is on the way, each way, and is lost with the connection.
            let (mut texts, mut acks) = (VecDeque::<(u64, String)>::new(), VecDeque::<u64>::new());
            let (mut sent, mut came) = (String::new(), String::new());
            let mut waiting = VecDeque::<String>::new();
            let mut handed = 0;
            for (step, length) in steps {
                match step {
                    0 | 1 if outgoing.room() > 0 => {
                        let text: String = (0..length.min(outgoing.room())).map(|at| char::from(b'a' + u8::try_from((at + sent.len()) % 26).unwrap())).collect();
                        sent.push_str(&text);
                        texts.push_back((outgoing.send(text.clone()), text));
                    }
                    2 => if let Some((seq, text)) = texts.pop_front() {
                        prop_assert_eq!(incoming.take(seq, text.len()), Ok(()));
                        waiting.push_back(text);
                    },
                    3 => if let Some(seq) = incoming.handed_on() {
                        came.push_str(&waiting.pop_front().unwrap());
                        prop_assert_eq!(seq, handed + 1);
                        handed = seq;
                        acks.push_back(seq);
                    } else if let Some(seq) = acks.pop_front() {
                        prop_assert_eq!(outgoing.acknowledged(seq), Ok(()));
                    },
                    _ => {
                        texts.clear();
                        acks.clear();
                        let Missing { texts: missing, end } = outgoing.missing(&incoming.held(1)).unwrap();
                        prop_assert_eq!(end, None);
                        texts.extend(missing);
                        prop_assert_eq!(outgoing.acknowledged(incoming.handed()), Ok(()));
                    }
                }
            }
            for (seq, text) in texts {
                prop_assert_eq!(incoming.take(seq, text.len()), Ok(()));
                waiting.push_back(text);
            }
            came.extend(waiting);
            prop_assert_eq!(came, sent);
        }
    }
}
