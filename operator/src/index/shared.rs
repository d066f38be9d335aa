//! Equal values, kept once.

use std::collections::BTreeSet;
use std::sync::Arc;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Shared<T>(BTreeSet<Arc<T>>);

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl<T: Ord> Shared<T> {
    /// The one that is kept of all that are equal to this.
    pub fn share(&mut self, one: impl Into<Arc<T>>) -> Arc<T> {
        let one = one.into();
        if let Some(known) = self.0.get(&one) {
            return known.clone();
        }
        self.0.insert(one.clone());
        one
    }

    /// Forgets what nobody else has.
    pub fn forget_unused(&mut self) {
        self.0.retain(|one| Arc::strong_count(one) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_until_nobody_has_them() {
        let mut shared = Shared::<String>::default();
        let (first, second) = (shared.share("a".to_owned()), shared.share("a".to_owned()));
        assert!(Arc::ptr_eq(&first, &second));
        shared.forget_unused();
        assert_eq!(shared.0.len(), 1);
        drop((first, second));
        shared.forget_unused();
        assert!(shared.0.is_empty());
    }
}
