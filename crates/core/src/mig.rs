//! MIG: which slices of a device an instance may take.
//!
//! A device of the A100 or H100 family has 8 memory slices and 7 compute slices. A profile of given size may start only at
//! certain memory slices (NVIDIA MIG User Guide, "Supported MIG profiles", placements); combinations that overlap, or that
//! would need an eighth compute slice, are not legal. A set of instances is a mask of the memory slices that they take.

use serde::{Deserialize, Serialize};

/// An instance size, by its share of compute (`1g` ... `7g`).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Profile {
    /// 1 compute slice, 1 memory slice (`1g.10gb` of 80 GB).
    G1,
    /// 1 compute slice, 2 memory slices (`1g.20gb`).
    G1Plus,
    /// 2 and 2 (`2g.20gb`).
    G2,
    /// 3 and 4 (`3g.40gb`).
    G3,
    /// 4 and 4 (`4g.40gb`).
    G4,
    /// All (`7g.80gb`).
    G7,
}

impl Profile {
    /// Every profile, smallest first.
    pub const ALL: [Self; 6] = [Self::G1, Self::G1Plus, Self::G2, Self::G3, Self::G4, Self::G7];

    /// Memory slices, of 8.
    pub fn memory_slices(self) -> u32 {
        match self {
            Self::G1 => 1,
            Self::G1Plus | Self::G2 => 2,
            Self::G3 | Self::G4 => 4,
            Self::G7 => 8,
        }
    }

    /// Compute slices, of 7.
    pub fn compute_slices(self) -> u32 {
        match self {
            Self::G1 | Self::G1Plus => 1,
            Self::G2 => 2,
            Self::G3 => 3,
            Self::G4 => 4,
            Self::G7 => 7,
        }
    }

    /// Memory slices at which an instance may start.
    fn starts(self) -> &'static [u32] {
        match self {
            Self::G1 => &[0, 1, 2, 3, 4, 5, 6],
            Self::G1Plus => &[0, 2, 4, 6],
            Self::G2 => &[0, 2, 4],
            Self::G3 => &[0, 4],
            Self::G4 | Self::G7 => &[0],
        }
    }

    /// Thousandths of the device that quota counts: its memory slices, since these are what others cannot use.
    pub fn milli(self) -> u16 {
        u16::try_from(self.memory_slices() * 125).unwrap_or(1000)
    }

    /// The slices for one more instance beside those in `taken`, or `None`. Of the legal starts the one that leaves the most
    /// large instances possible, then the highest (small instances are kept away from slice 0, where `4g` must start).
    pub fn place(self, taken: u8) -> Option<u8> {
        let legal = self.starts().iter().map(|start| self.mask_at(*start)).filter(|mask| mask & taken == 0);
        legal.max_by_key(|mask| (room(taken | mask), *mask))
    }

    /// The mask of an instance that starts at `start`.
    fn mask_at(self, start: u32) -> u8 {
        let slices = u8::try_from((1_u32 << self.memory_slices()) - 1).unwrap_or(u8::MAX);
        slices << start
    }

    /// Whether `mask` is a legal place of this profile.
    pub fn is_legal(self, mask: u8) -> bool {
        self.starts().iter().any(|start| self.mask_at(*start) == mask)
    }
}

/// What an instance is that a node gives away by its profile's name (`1g.10gb`, `1g.10gb.me`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    pub memory_mib: u64,
    /// Thousandths of its GPU: its memory slices, as of [`Profile::milli`].
    pub part: u16,
}

impl Instance {
    /// Of a profile's name, on a GPU of so much memory: without that, as many memory slices as the profile of so many compute slices has at
    /// least. None for what is no profile's name.
    pub fn of(profile: &str, gpu_mib: Option<u64>) -> Option<Self> {
        let number = |unit: &str| profile.split('.').find_map(|piece| piece.strip_suffix(unit)?.parse::<u32>().ok());
        let (compute, memory_mib) = (number("g")?, u64::from(number("gb")?) * 1024);
        let by_compute = match compute {
            0..=2 => compute.max(1),
            3 | 4 => 4,
            _ => 8,
        };
        // Names are rounded: 10 GB of 79.6 GiB are an eighth.
        let by_memory = gpu_mib.filter(|mib| *mib > 0).map(|mib| (memory_mib * 8 + mib / 2) / mib);
        let slices = by_memory.map_or(by_compute, |slices| u32::try_from(slices.clamp(1, 8)).unwrap_or(8));
        Some(Self { memory_mib, part: u16::try_from(slices * 125).unwrap_or(1000) })
    }
}

/// What still fits, weighed by size: for comparing placements.
fn room(taken: u8) -> u32 {
    let fits = |profile: Profile| profile.starts().iter().filter(|start| profile.mask_at(**start) & taken == 0).count();
    let score = |profile: Profile| u32::try_from(fits(profile)).unwrap_or(0) * profile.memory_slices();
    Profile::ALL.into_iter().map(score).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seven_of_the_smallest_fit_and_an_eighth_does_not() {
        let mut taken = 0;
        for _ in 0..7 {
            let mask = Profile::G1.place(taken).unwrap();
            assert!(Profile::G1.is_legal(mask) && mask & taken == 0);
            taken |= mask;
        }
        assert_eq!(Profile::G1.place(taken), None);
    }

    #[test]
    fn small_instances_leave_room_for_large_ones() {
        let taken = Profile::G1.place(0).unwrap();
        let taken = taken | Profile::G2.place(taken).unwrap();
        assert!(Profile::G4.place(taken).is_some(), "{taken:08b}");
        let both = Profile::G3.place(0).unwrap();
        assert!(Profile::G4.place(both).is_some(), "a 3g must not take the place of the 4g: {both:08b}");
    }

    #[test]
    fn an_instance_counts_by_its_memory_where_that_of_the_gpu_is_known() {
        let part = |profile: &str, gpu_mib: Option<u64>| Instance::of(profile, gpu_mib).map(|instance| instance.part);
        let h100 = Some(81_559);
        let known = ["1g.10gb", "1g.10gb.me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"].map(|name| part(name, h100));
        assert_eq!(known, [125, 125, 250, 250, 500, 500, 1000].map(Some));
        assert_eq!((part("1g.18gb", Some(143_771)), part("2g.12gb", Some(24_576))), (Some(125), Some(500)), "H200 and A30");
        let unknown = ["1g.10gb", "2g.20gb", "3g.40gb", "7g.80gb"].map(|name| part(name, None));
        assert_eq!(unknown, [125, 250, 500, 1000].map(Some));
        assert_eq!((part("shared", None), Instance::of("1g.5gb", None).map(|of| of.memory_mib)), (None, Some(5_120)));
    }

    #[test]
    fn a_whole_device_is_one_7g() {
        assert_eq!(Profile::G7.place(0), Some(255));
        assert_eq!(Profile::G7.place(1), None);
        assert_eq!(Profile::G7.milli(), 1000);
    }
}
