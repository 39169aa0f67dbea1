//! What a fleet shows of itself: the page in a real browser, metrics under promtool, and a killed worker as the others see it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use sluicegate_lease::WorkerId;
use sluicegate_tests::harness::browser::Browser;
use sluicegate_tests::harness::fleet::{APPLICATION, ask};
use sluicegate_tests::harness::{Backend, Fleet, LONG, flights, wait_for};
use sluicegate_tests::measure::hardship::value_of;
use tokio::time::Instant;

/// The admin server of each worker that has a row.
async fn addresses(backend: &Backend) -> anyhow::Result<BTreeMap<WorkerId, String>> {
    let rows = backend.workers(APPLICATION).await?;
    Ok(rows.into_iter().filter_map(|row| Some((row.worker_id, row.address?))).collect())
}

async fn joined(backend: &Backend, count: usize) -> anyhow::Result<BTreeMap<WorkerId, String>> {
    wait_for("workers with leases", LONG, async || {
        let rows = backend.workers(APPLICATION).await?;
        let settled = rows.len() == count && rows.iter().all(|row| row.leases > 0);
        Ok(if settled { Some(addresses(backend).await?) } else { None })
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_shows_the_fleet_at_every_width_in_light_and_dark_without_a_complaint() -> anyhow::Result<()>
{
    let Some(mut browser) = Browser::start().await? else {
        println!("SKIPPED: chromium is not installed");
        return Ok(());
    };
    let backend = Backend::with_stream(6).await?;
    let lines = flights(91, 600);
    backend.publish(&lines, None).await?;
    let mut fleet = Fleet::new(&backend, "page")?.set("write_budget_wcu", "1000");
    fleet.start(&[])?;
    fleet.start(&[])?;
    let workers = joined(&backend, 2).await?;
    fleet.drained(lines.len()).await?;
    let address = workers.values().next().context("no address")?;
    let mut grounds = Vec::new();
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")] {
        browser.open(&format!("http://{address}/"), (width, 844), scheme).await?;
        wait_for("the page to show six fresh shards", LONG, async || {
            let cells = browser.eval("document.querySelectorAll('.cells i.fresh').length").await?;
            Ok((cells.as_u64() == Some(6)).then_some(()))
        })
        .await?;
        let fits = browser.eval("document.documentElement.scrollWidth <= innerWidth").await?;
        assert_eq!(fits, true, "{width} px wide, {scheme}");
        let text = browser.eval("document.body.innerText").await?.as_str().context("no text")?.to_owned();
        for worker in workers.keys() {
            ensure!(text.contains(worker.as_str()), "{worker} is not on the page: {text}");
        }
        ensure!(text.contains("All is well."), "{text}");
        // Names of fields and values of what was published.
        ensure!(!text.contains("tailnum") && !text.contains("dep_delay"), "{text}");
        let own =
            "performance.getEntriesByType('resource').every(entry => entry.name.startsWith(location.origin))";
        assert_eq!(browser.eval(own).await?, true, "something came from elsewhere");
        grounds.push(browser.eval("getComputedStyle(document.body).backgroundColor").await?);
    }
    assert_ne!(grounds[0], grounds[1]);
    assert_eq!((&grounds[0], &grounds[1]), (&grounds[2], &grounds[3]));
    let find = "const find = document.getElementById('find'); find.value = '000000000003'; \
                find.dispatchEvent(new Event('input')); document.querySelectorAll('#shards tbody tr').length";
    assert_eq!(browser.eval(find).await?, 1);
    assert_eq!(browser.complaints, Vec::<serde_json::Value>::new());
    let json = ask(address, "/fleet").await?;
    ensure!(!json.contains("tailnum") && !json.contains("dep_delay"), "{json}");
    // The others may be down: the page tells of them, and goes on.
    let (other, _) = workers.iter().next_back().context("no other worker")?;
    let index = fleet.index_of(other).await?.context("no such worker")?;
    let number = fleet.numbers()[index];
    fleet.kill(number).await?;
    wait_for("the page to tell of a silent worker whose shards are taken over", LONG, async || {
        let text = browser.eval("document.body.innerText").await?;
        let cells = browser.eval("document.querySelectorAll('.cells i.fresh').length").await?;
        let text = text.as_str().unwrap_or_default();
        Ok((text.contains("silent") && text.contains("its owner fell silent") && cells == 6).then_some(()))
    })
    .await?;
    assert_eq!(browser.complaints, Vec::<serde_json::Value>::new());
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_locked_page_opens_with_the_token_and_a_fleet_with_a_token_hands_over() -> anyhow::Result<()> {
    let backend = Backend::with_stream(4).await?;
    let mut fleet = Fleet::new(&backend, "token")?.set("admin_token", "correct-horse-battery");
    fleet.start(&[])?;
    fleet.start(&[])?;
    let workers = joined(&backend, 2).await?;
    let address = workers.values().next().context("no address")?;
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/", 200), ("/fleet", 401), ("/metrics", 401)]
    {
        let answer = ask(address, path).await?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
    }
    if let Some(mut browser) = Browser::start().await? {
        browser.open(&format!("http://{address}/"), (1280, 844), "light").await?;
        // There is no document for a moment while it is loaded.
        let state = "document.documentElement?.dataset.state";
        wait_for("the door", LONG, async || Ok((browser.eval(state).await? == "locked").then_some(())))
            .await?;
        let open = "document.getElementById('token').value = 'correct-horse-battery'; \
                    document.getElementById('door').requestSubmit()";
        browser.eval(open).await?;
        wait_for("the fleet", LONG, async || Ok((browser.eval(state).await? == "live").then_some(())))
            .await?;
        // A link sends no token by itself.
        for (link, first) in [("fleet", "{\"application\":"), ("metrics", "# HELP ")] {
            browser.eval(&format!("document.querySelector('footer a[href={link}]').click()")).await?;
            wait_for("what is behind the link", LONG, async || {
                // What is asked of a page that is being left is not answered.
                let text = browser.eval("document.body?.innerText").await.unwrap_or_default();
                Ok(text.as_str().is_some_and(|text| text.starts_with(first)).then_some(()))
            })
            .await?;
            browser.open(&format!("http://{address}/"), (1280, 844), "light").await?;
            wait_for("the fleet", LONG, async || Ok((browser.eval(state).await? == "live").then_some(())))
                .await?;
        }
    } else {
        println!("SKIPPED: chromium is not installed");
    }
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_is_cut_off_from_dynamodb_says_so_and_tells_nothing_false_of_the_others()
-> anyhow::Result<()> {
    let Some(mut browser) = Browser::start().await? else {
        println!("SKIPPED: chromium is not installed");
        return Ok(());
    };
    let backend = Backend::with_stream(4).await?;
    // Long against a busy machine: nobody else is to count as silent.
    let mut fleet = Fleet::new(&backend, "cut-page")?.linked().set("failover_time", "5s");
    fleet.start(&[])?;
    let first = joined(&backend, 1).await?;
    // The second one has been given its shards, and has given none away.
    fleet.start(&[])?;
    let workers = joined(&backend, 2).await?;
    let mut second = workers.iter().filter(|(worker, _)| !first.contains_key(*worker));
    let (cut_off, address) = second.next().context("no second worker")?;
    let number = fleet.numbers()[fleet.index_of(cut_off).await?.context("no such worker")?];
    browser.open(&format!("http://{address}/"), (1280, 844), "light").await?;
    let text = "document.body?.innerText";
    let shows = async |browser: &mut Browser, wanted: &str| {
        wait_for(wanted, LONG, async || {
            let text = browser.eval(text).await?;
            Ok(text.as_str().filter(|text| text.contains(wanted)).map(str::to_owned))
        })
        .await
    };
    shows(&mut browser, "All is well.").await?;
    fleet.cut(number, true);
    wait_for("the other worker to have all shards", LONG, async || {
        let rows = backend.leases(APPLICATION).await?;
        Ok(rows.iter().all(|row| row.owner.as_ref().is_some_and(|owner| owner != cut_off)).then_some(()))
    })
    .await?;
    let text = shows(&mut browser, "This worker has not reached its tables for ").await?;
    ensure!(text.contains("Act now.") && !text.contains("silent"), "{text}");
    let scrape = ask(address, "/metrics").await?;
    assert_eq!(value_of(&scrape, "sluicegate_fleet_workers{state=\"silent\"}")?, 0.0);
    assert!(value_of(&scrape, "sluicegate_fleet_view_age_seconds")? > 5.0);
    fleet.cut(number, false);
    let text = shows(&mut browser, "All is well.").await?;
    ensure!(!text.contains("has not reached its tables"), "{text}");
    wait_for("both workers to have shards again", LONG, async || {
        let rows = backend.workers(APPLICATION).await?;
        Ok((rows.len() == 2 && rows.iter().all(|row| row.leases == 2)).then_some(()))
    })
    .await?;
    // It may get them back before it has seen that they were gone.
    let whys = format!(
        "[...document.querySelectorAll('#moves tbody tr')].map(row => row.cells) \
         .filter(cells => cells[2].innerText === '{cut_off}').map(cells => cells[4].innerText)"
    );
    let whys = browser.eval(&whys).await?;
    println!("why its shards moved: {whys}");
    let whys = whys.as_array().context("no list")?;
    ensure!(whys.iter().all(|why| why == "its owner fell silent"), "{whys:?}");
    assert_eq!(browser.complaints, Vec::<serde_json::Value>::new());
    fleet.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn promtool_finds_nothing_wrong_with_what_a_busy_worker_exports() -> anyhow::Result<()> {
    let backend = Backend::with_stream(4).await?;
    let lines = flights(92, 400);
    backend.publish(&lines, None).await?;
    let mut fleet = Fleet::new(&backend, "promtool")?;
    fleet.start(&[])?;
    let workers = joined(&backend, 1).await?;
    fleet.drained(lines.len()).await?;
    let address = workers.values().next().context("no address")?;
    let scrape = ask(address, "/metrics").await?;
    let (_, body) = scrape.split_once("\r\n\r\n").context("no body")?;
    assert_eq!(value_of(body, "sluicegate_fleet_shards")?, 4.0);
    assert_eq!(value_of(body, "sluicegate_fleet_shards_unowned")?, 0.0);
    assert_eq!(value_of(body, "sluicegate_ready")?, 1.0);
    assert!(value_of(body, "process_resident_memory_bytes")? > 1e6);
    let written =
        "sluicegate_table_requests_total{operation=\"BatchWriteItem\",outcome=\"ok\",table=\"analytics\"}";
    assert!(value_of(body, written)? > 0.0);
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), body)?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/check-metrics.sh");
    let output = tokio::process::Command::new(script).arg(file.path()).output().await?;
    let said = [output.stdout, output.stderr].concat();
    println!("{}", String::from_utf8_lossy(&said));
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    fleet.stop().await
}

/// Shard-seconds from a worker's last heartbeat to the new owners, by somebody who only reads the tables.
async fn watched_orphans(backend: &Backend, dead: &WorkerId) -> anyhow::Result<f64> {
    let mut beat = (0, Instant::now());
    let mut owned = std::collections::BTreeSet::new();
    let mut total = 0.0;
    wait_for("new owners", LONG, async || {
        let rows = backend.workers(APPLICATION).await?;
        let heartbeat = rows.iter().find(|row| row.worker_id == *dead).map_or(0, |row| row.heartbeat);
        if heartbeat > beat.0 {
            beat = (heartbeat, Instant::now());
        }
        for row in backend.leases(APPLICATION).await? {
            if row.owner.as_ref() == Some(dead) {
                owned.insert(row.key);
            } else if owned.remove(&row.key) {
                total += beat.1.elapsed().as_secs_f64();
            }
        }
        Ok((owned.is_empty() && total > 0.0).then_some(total))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orphaned_time_after_a_kill_is_what_an_outside_observer_measures() -> anyhow::Result<()> {
    let backend = Backend::with_stream(9).await?;
    // Long against a scan of a busy machine.
    let mut fleet = Fleet::new(&backend, "orphans")?.set("failover_time", "5s");
    for _ in 0..3 {
        fleet.start(&[])?;
    }
    wait_for("three workers with three leases", LONG, async || {
        let rows = backend.workers(APPLICATION).await?;
        Ok((rows.len() == 3 && rows.iter().all(|row| row.leases == 3)).then_some(()))
    })
    .await?;
    let workers = addresses(&backend).await?;
    let (dead, _) = workers.iter().next().context("no worker")?;
    let counted = async || {
        let mut counted = BTreeMap::new();
        for (worker, address) in workers.iter().filter(|(worker, _)| *worker != dead) {
            let scrape = ask(address, "/metrics").await?;
            counted.insert(worker.clone(), value_of(&scrape, "sluicegate_orphaned_shard_seconds_total")?);
        }
        anyhow::Ok(counted)
    };
    let before = counted().await?;
    let index = fleet.index_of(dead).await?.context("no such worker")?;
    let number = fleet.numbers()[index];
    let (measured, killed) = tokio::join!(watched_orphans(&backend, dead), async {
        // Not before the observer has seen a heartbeat.
        tokio::time::sleep(Duration::from_secs(2)).await;
        fleet.kill(number).await
    });
    killed?;
    let measured = measured?;
    wait_for("the survivors to see all owners", LONG, async || {
        let mut unowned = 0.0;
        for (_, address) in workers.iter().filter(|(worker, _)| *worker != dead) {
            unowned += value_of(&ask(address, "/metrics").await?, "sluicegate_fleet_shards_unowned")?;
        }
        Ok((unowned == 0.0).then_some(()))
    })
    .await?;
    for (worker, total) in counted().await? {
        let seen = total - before[&worker];
        println!("{worker}: {seen:.2} shard-seconds, measured {measured:.2}");
        ensure!((seen - measured).abs() <= measured * 0.1, "{worker}: {seen} counted, {measured} measured");
    }
    fleet.stop().await
}
