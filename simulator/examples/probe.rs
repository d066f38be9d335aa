use tidegate_simulator::kueue::{engine::EngineScheduler, Scene, QuotaScheduler};
use tidegate_simulator::studies::kueue;
fn main() {
    let name = std::env::args().nth(1).unwrap();
    if name == "philly" { let d = std::path::PathBuf::from(std::env::var("TIDEGATE_DATA").unwrap()); let t=std::time::Instant::now(); let r = tidegate_simulator::studies::philly::run(&d, |st: &tidegate_simulator::studies::philly::Stage| tidegate_simulator::jobs::policies::tidegate(&st.setup)).unwrap(); println!("{r} {:?}", t.elapsed()); return; }
    let mut f = |s: &Scene| Box::new(EngineScheduler::new(s)) as Box<dyn QuotaScheduler>;
    let clock = kueue::wall_clock();
    let r = kueue::run(&name, &mut f, &clock).unwrap();
    println!("{r}\n{}", serde_json::to_string_pretty(&r.details).unwrap());
}
