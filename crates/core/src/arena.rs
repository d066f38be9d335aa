//! Named things in dense slots: looked up by name at the edge, by number inside.
//!
//! A slot's number is part of the state, so that an engine restored from a snapshot breaks ties as the
//! original did. Iteration is in the order of names.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A map from names to values whose entries also have a small number.
#[derive(Clone, Debug)]
pub struct Arena<K, V> {
    slots: Vec<Option<(K, V)>>,
    ids: BTreeMap<K, u32>,
    /// Empty slots; the last one is used next.
    free: Vec<u32>,
}

impl<K, V> Default for Arena<K, V> {
    fn default() -> Self {
        Self { slots: Vec::new(), ids: BTreeMap::new(), free: Vec::new() }
    }
}

impl<K: PartialEq, V: PartialEq> PartialEq for Arena<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.slots == other.slots && self.free == other.free
    }
}

impl<K: Eq, V: Eq> Eq for Arena<K, V> {}

impl<K: Ord + Clone, V> Arena<K, V> {
    /// Puts `value` under `key`, in the same slot if the key is known. Returns the slot.
    pub fn insert(&mut self, key: K, value: V) -> u32 {
        if let Some(ix) = self.ids.get(&key).copied() {
            if let Some(slot) = self.slots.get_mut(ix as usize) {
                *slot = Some((key, value));
            }
            return ix;
        }
        let entry = Some((key.clone(), value));
        let ix = if let Some(ix) = self.free.pop() {
            if let Some(slot) = self.slots.get_mut(ix as usize) {
                *slot = entry;
            }
            ix
        } else {
            self.slots.push(entry);
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        };
        self.ids.insert(key, ix);
        ix
    }

    /// Removes the entry of a name.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        let ix = self.ids.remove(key)?;
        let (_, value) = self.slots.get_mut(ix as usize)?.take()?;
        self.free.push(ix);
        Some(value)
    }

    /// The slot of a name.
    pub fn ix(&self, key: &K) -> Option<u32> {
        self.ids.get(key).copied()
    }

    /// The value of a name.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.at(self.ix(key)?)
    }

    /// The value of a name, to change.
    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let ix = self.ix(key)?;
        self.at_mut(ix)
    }

    /// The value in a slot.
    pub fn at(&self, ix: u32) -> Option<&V> {
        self.slots.get(ix as usize)?.as_ref().map(|(_, value)| value)
    }

    /// The value in a slot, to change.
    pub fn at_mut(&mut self, ix: u32) -> Option<&mut V> {
        self.slots.get_mut(ix as usize)?.as_mut().map(|(_, value)| value)
    }

    /// The name of a slot.
    pub fn name(&self, ix: u32) -> Option<&K> {
        self.slots.get(ix as usize)?.as_ref().map(|(key, _)| key)
    }

    /// Whether the name is known.
    pub fn contains_key(&self, key: &K) -> bool {
        self.ids.contains_key(key)
    }

    /// Entries in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.ids.iter().filter_map(|(key, ix)| self.at(*ix).map(|value| (key, value)))
    }

    /// Entries with their slots, in the order of slots.
    pub fn slots(&self) -> impl Iterator<Item = (u32, &K, &V)> {
        (0_u32..).zip(&self.slots).filter_map(|(ix, slot)| slot.as_ref().map(|(key, value)| (ix, key, value)))
    }

    /// Values in the order of names.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// Names in order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.ids.keys()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// One more than the highest slot ever used.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }
}

impl<K: Ord + Clone, V> std::ops::Index<&K> for Arena<K, V> {
    type Output = V;

    /// For tests and places that hold a name which cannot be gone.
    #[expect(clippy::expect_used, reason = "the contract of Index")]
    fn index(&self, key: &K) -> &V {
        self.get(key).expect("a known name")
    }
}

impl<K: Serialize, V: Serialize> Serialize for Arena<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (&self.slots, &self.free).serialize(serializer)
    }
}

impl<'de, K: Deserialize<'de> + Ord + Clone, V: Deserialize<'de>> Deserialize<'de> for Arena<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (slots, free): (Vec<Option<(K, V)>>, Vec<u32>) = Deserialize::deserialize(deserializer)?;
        let ids = (0_u32..).zip(&slots).filter_map(|(ix, slot)| slot.as_ref().map(|(key, _)| (key.clone(), ix))).collect();
        Ok(Self { slots, ids, free })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_survive_a_snapshot_and_are_used_again() {
        let mut arena: Arena<String, u32> = Arena::default();
        let a = arena.insert("a".into(), 1);
        let b = arena.insert("b".into(), 2);
        assert_eq!(arena.insert("a".into(), 3), a, "a known name keeps its slot");
        arena.remove(&"a".to_owned());
        let json = serde_json::to_string(&arena).unwrap();
        let mut restored: Arena<String, u32> = serde_json::from_str(&json).unwrap();
        assert_eq!(restored, arena);
        assert_eq!(restored.ix(&"b".to_owned()), Some(b));
        assert_eq!(restored.insert("c".into(), 4), arena.insert("c".into(), 4));
        assert_eq!(restored.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    }
}
