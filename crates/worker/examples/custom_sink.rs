//! A sink of one's own: counts the events of each partition key. Run it with
//! `cargo run -p sluicegate-worker --example custom_sink`.

use std::sync::Arc;

use sluicegate_checkpoint::{Batch, Right};
use sluicegate_lease::memory::{MemoryLeaseStore, MemoryRegistry};
use sluicegate_sink::{DeliverError, Delivered, Sink, sink::UNPACKED};
use sluicegate_worker::{Worker, memory::MemoryStream};
use tokio_util::sync::CancellationToken;

struct Counting(tokio::sync::mpsc::Sender<usize>);

#[async_trait::async_trait]
impl Sink for Counting {
    async fn deliver(&self, batch: Arc<Batch>, _right: Arc<dyn Right>) -> Result<Delivered, DeliverError> {
        let closed =
            |source| DeliverError::Unavailable { what: "nobody counts".into(), source: Box::new(source) };
        self.0.send(batch.stored().count()).await.map_err(closed)?;
        Ok(Delivered::of(&batch))
    }

    fn packing_versions(&self) -> &[u32] {
        UNPACKED
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let stream = MemoryStream::new(2);
    (0..1_000).for_each(|n| stream.put(&format!("customer-{}", n % 7), format!("order {n}")));
    let (counts, mut counted) = tokio::sync::mpsc::channel(16);
    let stop = CancellationToken::new();
    let worker = Worker::builder("counter")
        .stream(stream)
        .tables(Arc::new(MemoryLeaseStore::default()), Arc::new(MemoryRegistry::default()))
        .sink(Arc::new(Counting(counts)))
        .build()?;
    let count = async {
        let mut total = 0;
        while total < 1_000 {
            total += counted.recv().await.unwrap_or(1_000);
        }
        stop.cancel();
        total
    };
    let (ended, total) = tokio::join!(worker.run(stop.clone()), count);
    ended?;
    std::io::Write::write_all(&mut std::io::stdout(), format!("counted {total} events\n").as_bytes())?;
    Ok(())
}
