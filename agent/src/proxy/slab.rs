//! Things with numbers: a number that is used again never stands for what it stood for before.

/// What the kernel is given to name a thing: its place and how often the place was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    place: u32,
    turn: u32,
}

/// The two lowest bits of a mark say what about the thing is meant.
const BITS: u32 = 2;

impl Key {
    /// As one number, with something of the caller's from 0 to 3.
    pub fn mark(self, what: u64) -> u64 {
        (u64::from(self.turn) << 32) | (u64::from(self.place) << BITS) | what
    }

    /// Back from one number.
    pub fn unmark(mark: u64) -> (Key, u64) {
        let low = mark as u32;
        (Key { place: low >> BITS, turn: (mark >> 32) as u32 }, mark & ((1 << BITS) - 1))
    }
}

/// Things by key.
#[derive(Debug)]
pub struct Slab<T> {
    places: Vec<(u32, Option<Box<T>>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { places: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Takes a thing in.
    pub fn insert(&mut self, thing: T) -> Key {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push((0, None));
            self.places.len() as u32 - 1
        });
        let (turn, slot) = &mut self.places[place as usize];
        *slot = Some(Box::new(thing));
        Key { place, turn: *turn }
    }

    /// The thing, if it is still there.
    pub fn get(&mut self, key: Key) -> Option<&mut T> {
        let (turn, slot) = self.places.get_mut(key.place as usize)?;
        if *turn == key.turn { slot.as_deref_mut() } else { None }
    }

    /// Takes it out.
    pub fn remove(&mut self, key: Key) -> Option<T> {
        let (turn, slot) = self.places.get_mut(key.place as usize)?;
        if *turn != key.turn {
            return None;
        }
        let thing = slot.take()?;
        *turn = turn.wrapping_add(1);
        self.free.push(key.place);
        Some(*thing)
    }

    /// The keys of things of a kind.
    pub fn keys(&self, wanted: impl Fn(&T) -> bool) -> Vec<Key> {
        let places = self.places.iter().enumerate();
        places
            .filter(|(_, (_, slot))| slot.as_ref().is_some_and(|thing| wanted(thing)))
            .map(|(place, (turn, _))| Key { place: place as u32, turn: *turn })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, Slab};

    #[test]
    fn a_place_that_is_used_again_is_another_thing() {
        let mut slab = Slab::default();
        let first = slab.insert("first");
        assert_eq!(Key::unmark(first.mark(2)), (first, 2));
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(slab.get(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get(second), Some(&mut "second"));
        assert_eq!(slab.keys(|_| true), [second]);
    }
}
