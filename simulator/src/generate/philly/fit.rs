//! Figures fitted to the Philly trace (82,247 rows, 2017-09-04 to 2017-12-22).

/// One virtual cluster.
pub struct Cluster {
    pub name: &'static str,
    /// Jobs in the original.
    pub jobs: u32,
    /// Jobs by [`SIZES`].
    pub sizes: [u32; 10],
    /// Weights of [`LENGTHS`] for 1 GPU, 2 to 4, 8 and more; where the original has under 60 jobs, those of all clusters.
    pub lengths: [[u32; 7]; 3],
    /// Of 1000 jobs, how many follow one of equal size within 60 s.
    pub sweep: u32,
    /// Mean seconds between them.
    pub gap_s: u32,
}

/// GPUs of a job.
pub const SIZES: [u32; 10] = [1, 2, 4, 8, 12, 16, 24, 32, 64, 128];

/// Log-normal run times: median in seconds, deviation of the logarithm.
pub const LENGTHS: [(f64, f64); 7] =
    [(66.5, 0.897), (65.4, 0.141), (315.6, 1.506), (1512.3, 0.606), (2570.3, 0.06), (5652.2, 0.701), (59_320.0, 1.292)];

/// 2017-09-04 00:00, a Monday.
pub const START_MS: u64 = 1_504_483_200_000;

/// Jobs by week from then on.
pub const WEEKS: [u32; 16] = [9, 13, 1549, 5462, 11_437, 11_967, 14_724, 6948, 3829, 7685, 4527, 3578, 3781, 4706, 658, 1374];

/// Jobs by day of the week, Monday first.
pub const WEEKDAYS: [u32; 7] = [10_136, 12_528, 13_370, 15_114, 16_954, 7157, 6988];

/// Jobs by hour of the day.
pub const HOURS: [u32; 24] = [
    4367, 3374, 3835, 3780, 2400, 3950, 5732, 7159, 3802, 3447, 3510, 2979, 2567, 2415, 2185, 2224, 3021, 2289, 2744, 2496, 3483,
    3142, 3885, 3461,
];

/// The virtual clusters, largest first.
pub const CLUSTERS: [Cluster; 15] = [
    Cluster {
        name: "6214e9",
        jobs: 41_226,
        sizes: [40_841, 50, 144, 191, 0, 0, 0, 0, 0, 0],
        lengths: [[23, 39, 350, 211, 107, 253, 17], [106, 0, 284, 184, 0, 1, 426], [0, 218, 157, 0, 0, 369, 256]],
        sweep: 919,
        gap_s: 10,
    },
    Cluster {
        name: "11cb48",
        jobs: 16_091,
        sizes: [14_607, 1415, 40, 10, 0, 19, 0, 0, 0, 0],
        lengths: [[134, 721, 50, 16, 0, 46, 33], [972, 0, 0, 0, 0, 5, 23], [0, 1, 288, 15, 0, 45, 651]],
        sweep: 148,
        gap_s: 11,
    },
    Cluster {
        name: "6c71a0",
        jobs: 9953,
        sizes: [9054, 37, 396, 455, 0, 11, 0, 0, 0, 0],
        lengths: [[0, 7, 287, 432, 0, 149, 125], [310, 17, 562, 0, 0, 65, 47], [0, 0, 461, 0, 0, 48, 491]],
        sweep: 750,
        gap_s: 7,
    },
    Cluster {
        name: "b436b2",
        jobs: 7423,
        sizes: [7237, 3, 72, 51, 0, 58, 2, 0, 0, 0],
        lengths: [[4, 4, 0, 972, 0, 0, 20], [113, 7, 0, 0, 0, 0, 880], [0, 0, 202, 32, 6, 0, 760]],
        sweep: 941,
        gap_s: 2,
    },
    Cluster {
        name: "103959",
        jobs: 1934,
        sizes: [1571, 33, 330, 0, 0, 0, 0, 0, 0, 0],
        lengths: [[39, 30, 678, 0, 0, 0, 252], [0, 0, 0, 27, 0, 147, 826], [0, 1, 288, 15, 0, 45, 651]],
        sweep: 277,
        gap_s: 7,
    },
    Cluster {
        name: "ee9e8c",
        jobs: 1511,
        sizes: [597, 109, 266, 420, 0, 96, 1, 13, 6, 3],
        lengths: [[0, 0, 292, 4, 0, 31, 673], [34, 1, 0, 0, 0, 112, 854], [90, 0, 37, 9, 11, 0, 853]],
        sweep: 206,
        gap_s: 23,
    },
    Cluster {
        name: "0e4a51",
        jobs: 1435,
        sizes: [1090, 164, 181, 0, 0, 0, 0, 0, 0, 0],
        lengths: [[0, 0, 789, 0, 0, 0, 211], [0, 0, 0, 3, 0, 0, 997], [0, 1, 288, 15, 0, 45, 651]],
        sweep: 946,
        gap_s: 6,
    },
    Cluster {
        name: "ed69ec",
        jobs: 1137,
        sizes: [1137, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        lengths: [[31, 0, 6, 492, 0, 35, 435], [514, 0, 9, 52, 0, 21, 404], [0, 1, 288, 15, 0, 45, 651]],
        sweep: 807,
        gap_s: 10,
    },
    Cluster {
        name: "7f04ca",
        jobs: 723,
        sizes: [204, 0, 329, 179, 0, 11, 0, 0, 0, 0],
        lengths: [[0, 0, 190, 35, 0, 235, 541], [0, 0, 427, 0, 3, 0, 570], [0, 0, 88, 32, 0, 171, 710]],
        sweep: 418,
        gap_s: 15,
    },
    Cluster {
        name: "2869ce",
        jobs: 422,
        sizes: [64, 4, 10, 293, 0, 0, 0, 51, 0, 0],
        lengths: [[0, 0, 193, 0, 0, 746, 61], [514, 0, 9, 52, 0, 21, 404], [0, 0, 82, 285, 0, 0, 633]],
        sweep: 306,
        gap_s: 16,
    },
    Cluster {
        name: "e13805",
        jobs: 374,
        sizes: [215, 3, 102, 36, 7, 4, 4, 3, 0, 0],
        lengths: [[0, 0, 189, 0, 0, 274, 537], [0, 0, 161, 0, 0, 408, 431], [0, 1, 288, 15, 0, 45, 651]],
        sweep: 24,
        gap_s: 27,
    },
    Cluster {
        name: "23dbec",
        jobs: 8,
        sizes: [2, 0, 0, 6, 0, 0, 0, 0, 0, 0],
        lengths: [[1, 169, 314, 261, 49, 154, 51], [514, 0, 9, 52, 0, 21, 404], [0, 1, 288, 15, 0, 45, 651]],
        sweep: 625,
        gap_s: 8,
    },
    Cluster {
        name: "51b7ef",
        jobs: 4,
        sizes: [4, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        lengths: [[1, 169, 314, 261, 49, 154, 51], [514, 0, 9, 52, 0, 21, 404], [0, 1, 288, 15, 0, 45, 651]],
        sweep: 0,
        gap_s: 1,
    },
    Cluster {
        name: "925e2b",
        jobs: 3,
        sizes: [1, 0, 0, 2, 0, 0, 0, 0, 0, 0],
        lengths: [[1, 169, 314, 261, 49, 154, 51], [514, 0, 9, 52, 0, 21, 404], [0, 1, 288, 15, 0, 45, 651]],
        sweep: 333,
        gap_s: 5,
    },
    Cluster {
        name: "795a4c",
        jobs: 3,
        sizes: [3, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        lengths: [[1, 169, 314, 261, 49, 154, 51], [514, 0, 9, 52, 0, 21, 404], [0, 1, 288, 15, 0, 45, 651]],
        sweep: 0,
        gap_s: 1,
    },
];
