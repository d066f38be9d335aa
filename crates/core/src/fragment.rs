//! stub until the packing helper's module lands
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mix;
pub fn device_rank(_mix: &Mix, free: &[u16], at: usize, _milli: u16) -> u16 { free.get(at).copied().unwrap_or(0) }
