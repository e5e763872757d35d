//! What flows one way through a proxied connection: chunks of bytes in order, then an end.

use std::collections::VecDeque;

use bytes::Bytes;

/// Bytes that one read returned, or a part of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The bytes: never none.
    pub bytes: Bytes,
    /// When they were read, on the monotonic clock in nanoseconds; moved on by what a `latency` toxic held them.
    pub at: u64,
}

/// How a direction ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The sender has nothing more to say; the other direction goes on (TCP's half-close, RFC 9293 section 3.6).
    Finished,
    /// Both directions are closed as soon as what came before is written.
    Closed,
    /// The sender reset the connection; so is the other side's, as soon as what came before is written.
    Reset,
}

/// One thing in the order in which it flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// Bytes.
    Data(Chunk),
    /// Nothing follows.
    End(Ending),
}

/// What waits at one place of a link.
#[derive(Debug, Default)]
pub struct Queue {
    items: VecDeque<Item>,
    bytes: usize,
}

impl Queue {
    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether nothing waits, not even an end.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// What is next.
    pub fn front(&self) -> Option<&Item> {
        self.items.front()
    }

    /// At the end.
    pub fn push(&mut self, item: Item) {
        if let Item::Data(chunk) = &item {
            self.bytes += chunk.bytes.len();
        }
        self.items.push_back(item);
    }

    /// Back to where it came from.
    pub fn push_front(&mut self, item: Item) {
        if let Item::Data(chunk) = &item {
            self.bytes += chunk.bytes.len();
        }
        self.items.push_front(item);
    }

    /// Takes what is next.
    pub fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front()?;
        if let Item::Data(chunk) = &item {
            self.bytes -= chunk.bytes.len();
        }
        if self.items.is_empty() && self.items.capacity() > 64 {
            self.items = VecDeque::new();
        }
        Some(item)
    }

    /// Takes at most so many bytes of the chunk that is next; an end whole.
    pub fn pop_part(&mut self, most: usize) -> Option<Item> {
        match self.items.front_mut() {
            Some(Item::Data(chunk)) if chunk.bytes.len() > most => {
                let bytes = chunk.bytes.split_to(most);
                self.bytes -= bytes.len();
                Some(Item::Data(Chunk { bytes, at: chunk.at }))
            }
            _ => self.pop(),
        }
    }

    /// Everything of another queue, behind what is here.
    pub fn append(&mut self, other: &mut Queue) {
        self.items.append(&mut other.items);
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Queue::default();
    }
}
