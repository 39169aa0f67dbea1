//! `make simulate`: runs as many simulations as wanted and says what they found.

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let seeds: u64 = args.get(1).and_then(|n| n.parse().ok()).unwrap_or(100);
    let from: u64 = args.get(2).and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut failures = 0;
    for seed in from..from + seeds {
        let outcome = sluicegate_tests::simulation::run(seed);
        if !outcome.broken.is_empty() {
            failures += 1;
            println!("{seed}: {:?}", &outcome.broken[..outcome.broken.len().min(2)]);
            if seeds == 1 {
                println!("{}", outcome.report());
            }
        }
    }
    println!("{seeds} seeds, {failures} failures");
}
