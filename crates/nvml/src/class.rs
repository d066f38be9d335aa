//! Device classes: the short names by which workloads ask for GPUs, made from the driver's product names.
//!
//! A class is `MODEL-SIZE`, for instance `H100-80GB` or `RTX-4090-24GB`:
//!
//! 1. the product name is cut at spaces, `-` and `_`, and words that do not tell devices apart for a
//!    workload are dropped: the maker, the board's form (`SXM4`, `PCIe`), the kind of memory (`HBM3`), sizes;
//! 2. the size is what the name says when the measured memory agrees (it is up to an eighth less: ECC and the
//!    driver take their part), else the next size in which GPUs are sold, else the measured GiB, rounded;
//!    the measurement wins because `GH200 480GB` names the memory of its CPU;
//! 3. the result is a valid Kubernetes label value: letters, digits, `-` and `.`, at most 63 of them.
//!
//! Names that nobody has seen yet go the same way and so keep their words.

/// Words that a class leaves out, in small letters.
const DROPPED: [&str; 18] = [
    "nvidia",
    "tesla",
    "geforce",
    "quadro",
    "gpu",
    "generation",
    "sxm",
    "sxm2",
    "sxm3",
    "sxm4",
    "sxm5",
    "pcie",
    "nvl",
    "hbm2",
    "hbm2e",
    "hbm3",
    "hbm3e",
    "gddr6",
];

/// Sizes in which GPUs are sold, in GB as their makers count.
const SOLD_GB: [u64; 26] =
    [2, 3, 4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 72, 80, 94, 96, 120, 128, 141, 144, 180, 192, 288];

/// A label value of Kubernetes is no longer.
const LONGEST: usize = 63;

const GIB: u64 = 1 << 30;

/// The class of a device with that product name and that much memory in bytes.
pub fn class(name: &str, memory_bytes: Option<u64>) -> String {
    let words: Vec<&str> = name.split([' ', '-', '_', '/']).filter(|w| !w.is_empty()).collect();
    let named_gb = words.iter().find_map(|w| size_word(w));
    let kept = words.iter().filter(|w| size_word(w).is_none() && !DROPPED.contains(&w.to_ascii_lowercase().as_str()));
    let model = kept.map(|w| clean(w)).filter(|w| !w.is_empty()).collect::<Vec<_>>().join("-");
    let model = if model.is_empty() { "GPU" } else { &model };
    match size_gb(named_gb, memory_bytes) {
        Some(gb) => {
            let size = format!("-{gb}GB");
            format!("{}{size}", cut(model, LONGEST - size.len()))
        }
        None => cut(model, LONGEST).to_owned(),
    }
}

/// `80GB` and `144G` are sizes.
fn size_word(word: &str) -> Option<u64> {
    let lower = word.to_ascii_lowercase();
    let digits = lower.strip_suffix("gb").or_else(|| lower.strip_suffix('g'))?;
    digits.parse().ok().filter(|gb| *gb > 0)
}

fn size_gb(named_gb: Option<u64>, memory_bytes: Option<u64>) -> Option<u64> {
    let Some(bytes) = memory_bytes else { return named_gb };
    let is = |gb: &u64| fits(bytes, *gb);
    named_gb.filter(is).or_else(|| SOLD_GB.into_iter().find(is)).or(Some((bytes + GIB / 2) / GIB)).filter(|gb| *gb > 0)
}

/// Whether a device sold with `gb` measures `bytes`: at most 1 % more, at most an eighth less.
fn fits(bytes: u64, gb: u64) -> bool {
    let sold = gb.saturating_mul(GIB);
    bytes <= sold.saturating_add(sold / 100) && bytes >= sold - sold / 8
}

fn clean(word: &str) -> String {
    let ascii: String = word.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
    ascii.trim_matches('.').to_owned()
}

/// At most `longest` characters of ASCII text, not ending in a separator.
fn cut(text: &str, longest: usize) -> &str {
    text.get(..longest).unwrap_or(text).trim_end_matches(['-', '.'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn products_have_the_names_that_people_use() {
        let table = [
            ("NVIDIA H100 80GB HBM3", 81_559, "H100-80GB"),
            ("NVIDIA H100 PCIe", 81_559, "H100-80GB"),
            ("NVIDIA H100 NVL", 95_830, "H100-94GB"),
            ("NVIDIA H200", 143_771, "H200-141GB"),
            ("NVIDIA B200", 183_359, "B200-180GB"),
            ("NVIDIA GB300", 284_208, "GB300-288GB"),
            ("NVIDIA A100-SXM4-40GB", 40_960, "A100-40GB"),
            ("NVIDIA A100 80GB PCIe", 81_920, "A100-80GB"),
            ("Tesla V100-SXM2-16GB", 16_160, "V100-16GB"),
            ("Tesla T4", 15_360, "T4-16GB"),
            ("NVIDIA L4", 23_034, "L4-24GB"),
            ("NVIDIA L40S", 46_068, "L40S-48GB"),
            ("NVIDIA A10G", 23_028, "A10G-24GB"),
            ("NVIDIA GeForce RTX 4090", 24_564, "RTX-4090-24GB"),
            ("NVIDIA GeForce RTX 2080 Ti", 11_264, "RTX-2080-Ti-11GB"),
            ("NVIDIA GeForce RTX 4090 Laptop GPU", 16_376, "RTX-4090-Laptop-16GB"),
            ("NVIDIA RTX 6000 Ada Generation", 49_140, "RTX-6000-Ada-48GB"),
            ("Quadro RTX 8000", 46_080, "RTX-8000-48GB"),
        ];
        for (name, mib, expected) in table {
            assert_eq!(class(name, Some(mib * MIB)), expected, "{name}");
        }
    }

    #[test]
    fn the_measured_memory_wins_over_a_name_that_means_something_else() {
        assert_eq!(class("NVIDIA GH200 480GB", Some(97_871 * MIB)), "GH200-96GB");
        assert_eq!(class("NVIDIA A100-SXM4-40GB MIG 1g.5gb", Some(4_864 * MIB)), "A100-MIG-1g.5gb-5GB");
    }

    #[test]
    fn without_a_measurement_the_name_is_all_there_is() {
        assert_eq!(class("NVIDIA A100-SXM4-40GB", None), "A100-40GB");
        assert_eq!(class("NVIDIA L4", None), "L4");
    }

    #[test]
    fn unknown_names_are_kept_as_label_values() {
        assert_eq!(class("Graphics Device", Some(37 * 1024 * MIB)), "Graphics-Device-40GB");
        assert_eq!(class("NVIDIA Ω/µ (eng. sample)", Some(100 * 1024 * MIB)), "eng-sample-100GB");
        assert_eq!(class("", Some(16_384 * MIB)), "GPU-16GB");
        let long = class(&"Prototype ".repeat(20), Some(16_384 * MIB));
        assert!(long.len() <= 63 && long.starts_with("Prototype-Prototype") && long.ends_with("-16GB"), "{long}");
    }

    #[test]
    fn a_class_is_the_class_of_itself() {
        for name in ["H100-80GB", "RTX-4090-24GB", "A100-40GB"] {
            assert_eq!(class(name, None), name);
        }
    }
}
