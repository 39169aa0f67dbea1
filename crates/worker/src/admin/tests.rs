use std::time::Duration;

use http_body_util::BodyExt;
use sluicegate_lease::nudge::{Heard, Hint};
use sluicegate_lease::{LeaseKey, Listing, Nudge, WorkerId, WorkerRow, WorkerStatus};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::*;
use crate::budget::ByteBudget;
use crate::fleet::FleetParts;
use crate::nudge::HttpNudge;
use crate::watch::Stamp;
use crate::write_flow::BudgetSource;
use sluicegate_sink::governor::pace::RateReason;

const TOKEN: &str = "correct-horse-battery";
/// How long anything may take that should take milliseconds.
const LONG: Duration = Duration::from_secs(30);

fn admin(token: Option<&str>) -> Admin {
    let (clock, metrics) = (Clock::new(), Metrics::new().unwrap());
    let (me, listed) = (WorkerId::new("me"), watch::Sender::<Arc<Listing>>::default());
    let fleet = FleetWatch::new(FleetParts {
        application: "app".to_owned(),
        me: me.clone(),
        failover_time: Duration::from_secs(10),
        write_budget: Box::new(|| (Some(4_000.0), BudgetSource::Setting)),
        idle_interval: Duration::from_secs(1),
        clock: clock.clone(),
        epoch_seconds: Arc::new(|| 1_700_000_000),
        listed: listed.subscribe(),
        metrics: metrics.clone(),
        status: WorkerStatus::new(WorkerRow::new(me)),
        budget: ByteBudget::new(1 << 20),
    });
    Admin {
        metrics,
        watches: Watches::new(clock.clone()),
        readiness: Arc::default(),
        fleet: Arc::new(fleet),
        nudged: Nudges::default(),
        drain: CancellationToken::new(),
        token: token.map(|token| AdminToken::new(token).unwrap()),
        clock,
        answered: Mutex::default(),
    }
}

/// Status and body of an answer.
async fn ask(admin: &Admin, method: Method, path: &str, token: Option<&str>) -> (u16, String) {
    let authorization = token.map(|token| HeaderValue::try_from(format!("Bearer {token}")).unwrap());
    let uri = path.parse().unwrap();
    let asked = Asked { method: &method, uri: &uri, authorization: authorization.as_ref() };
    let answer = admin.answer(asked);
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn status(admin: &Admin, method: Method, path: &str, token: Option<&str>) -> u16 {
    ask(admin, method, path, token).await.0
}

/// A server with these limits, until it is dropped.
struct Server {
    address: SocketAddr,
    admin: Arc<Admin>,
    stop: CancellationToken,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[expect(clippy::disallowed_methods, reason = "a test owns its server")]
async fn server(limits: Limits, token: Option<&str>) -> Server {
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (admin, stop) = (Arc::new(admin(token)), CancellationToken::new());
    tokio::spawn(Arc::clone(&admin).serve(listener, limits, stop.clone()));
    Server { address, admin, stop }
}

async fn connected(server: &Server) -> TcpStream {
    TcpStream::connect(server.address).await.unwrap()
}

/// What a server sends until it closes.
async fn rest(socket: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    // A connection that is reset is closed as well.
    let read = tokio::time::timeout(LONG, socket.read_to_end(&mut answer)).await;
    drop(read.expect("the server does not close"));
    answer
}

async fn livez(server: &Server) -> String {
    let mut socket = connected(server).await;
    socket.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    String::from_utf8(rest(&mut socket).await).unwrap()
}

fn brief() -> Limits {
    Limits {
        first_request: Duration::from_millis(200),
        between_requests: Duration::from_millis(300),
        ..Limits::default()
    }
}

#[tokio::test]
async fn a_worker_is_ready_when_all_was_good_once_and_until_it_drains_and_alive_all_the_while() {
    let admin = admin(None);
    let ready = async || ask(&admin, Method::GET, "/readyz", None).await;
    assert!(ready().await.1.starts_with("starting"));
    admin.readiness.prepared();
    assert_eq!(ready().await.0, 503);
    admin.readiness.heartbeat();
    assert_eq!(ready().await, (200, "ok\n".to_owned()));
    assert!(ask(&admin, Method::GET, "/metrics", None).await.1.contains("\nsluicegate_ready 1\n"));
    admin.drain.cancel();
    assert_eq!(ready().await, (503, "draining\n".to_owned()));
    assert!(ask(&admin, Method::GET, "/metrics", None).await.1.contains("\nsluicegate_ready 0\n"));
    assert_eq!(status(&admin, Method::GET, "/livez", None).await, 200);
    assert_eq!(status(&admin, Method::POST, "/nudge", None).await, 410);
}

#[tokio::test(start_paused = true)]
async fn loops_that_are_stuck_are_named_and_not_all_of_a_thousand() {
    let admin = admin(None);
    let stamps: Vec<_> = (0..1_000)
        .map(|n| admin.watches.watch(format!("the session of s{n}"), Duration::from_secs(1)))
        .collect();
    let livez = async || ask(&admin, Method::GET, "/livez", None).await;
    assert_eq!(livez().await, (200, "ok\n".to_owned()));
    admin.clock.sleep(Duration::from_secs(4)).await;
    stamps.iter().skip(1).for_each(Stamp::stamp);
    assert_eq!(livez().await, (503, "the session of s0 is silent for 4s\n".to_owned()));
    admin.clock.sleep(Duration::from_secs(4)).await;
    let (status, body) = livez().await;
    assert_eq!((status, body.lines().count()), (503, STUCK_NAMED + 1));
    assert!(
        body.starts_with("the session of s0 is silent for 8s\n") && body.ends_with("and 990 more\n"),
        "{body}"
    );
}

#[tokio::test]
async fn a_token_guards_what_tells_and_what_acts_and_not_the_probes() {
    let admin = admin(Some(TOKEN));
    let all = [
        (Method::GET, "/livez", true),
        (Method::GET, "/readyz", true),
        (Method::GET, "/", true),
        (Method::GET, "/fleet", false),
        (Method::GET, "/metrics", false),
        (Method::POST, "/nudge", false),
        (Method::GET, "/other", false),
    ];
    for (method, path, open) in all {
        let refused = |status: u16| status == 401;
        assert_eq!(refused(status(&admin, method.clone(), path, None).await), !open, "{path}");
        assert_eq!(refused(status(&admin, method.clone(), path, Some("wrong-horse-battery")).await), !open);
        assert!(!refused(status(&admin, method, path, Some(TOKEN)).await), "{path}");
    }
    assert_eq!(status(&admin, Method::HEAD, "/livez", None).await, 200);
    assert_eq!(status(&admin, Method::HEAD, "/nudge", Some(TOKEN)).await, 405);
    assert_eq!(status(&admin, Method::GET, "/nudge", Some(TOKEN)).await, 405);
    assert_eq!(status(&admin, Method::POST, "/fleet", Some(TOKEN)).await, 405);
}

#[tokio::test]
async fn workers_that_share_the_token_nudge_each_other_and_others_do_not() {
    let server = server(Limits::default(), Some(TOKEN)).await;
    let (worker, address) = (WorkerId::new("it"), server.address.to_string());
    let hint = Hint { lease: LeaseKey::new("shardId-000000000001"), unread: None };
    let stranger = HttpNudge::new(None);
    assert_eq!(stranger.look_now(&worker, Some(&address), Some(&hint)).await, Heard::Unanswered);
    assert!(server.admin.nudged.take_hints().is_empty());
    let token = AdminToken::new(TOKEN).unwrap();
    let fellow = HttpNudge::new(Some(&token));
    assert_eq!(fellow.look_now(&worker, Some(&address), Some(&hint)).await, Heard::Looking);
    assert_eq!(server.admin.nudged.take_hints().len(), 1);
}

#[tokio::test]
async fn the_fleet_is_json_and_holds_what_is_known() {
    let admin = admin(None);
    let (status, body) = ask(&admin, Method::GET, "/fleet", None).await;
    let fleet: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, fleet["application"].as_str()), (200, Some("app")));
    assert_eq!(fleet["totals"]["write_budget_units"], 4_000.0);
    assert_eq!(fleet["totals"]["write_budget_source"], "setting");
    assert_eq!(fleet["shards"], serde_json::json!([]));
}

#[test]
fn the_page_needs_nothing_but_itself_and_makes_no_markup_of_what_it_is_told() {
    let page = PAGE.replace("http://www.w3.org/2000/svg", "");
    for foreign in
        ["http://", "https://", "//cdn", "@import", "src=", "innerHTML", "insertAdjacentHTML", "eval("]
    {
        assert!(!page.contains(foreign), "{foreign}");
    }
    let answer = super::page();
    assert!(answer.headers()["content-security-policy"].to_str().unwrap().starts_with("default-src 'none'"));
}

#[test]
fn the_page_has_words_for_every_reason_of_a_rate_and_every_source_of_a_budget() {
    let reasons = RateReason::ALL.map(RateReason::as_str);
    for word in reasons.into_iter().chain(BudgetSource::ALL.map(BudgetSource::as_str)) {
        assert!(PAGE.contains(&format!("{word}: \"")), "{word}");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused_and_others_are_served() {
    let server = server(Limits::default(), None).await;
    let mut socket = connected(&server).await;
    let head = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n", "y".repeat(1 << 20));
    // It may be closed before all of it is sent.
    drop(socket.write_all(head.as_bytes()).await);
    let answer = rest(&mut socket).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"), "{}", String::from_utf8_lossy(&answer));
    assert!(livez(&server).await.ends_with("ok\n"));
}

#[tokio::test]
async fn slow_and_silent_clients_are_closed_in_time() {
    let server = server(brief(), None).await;
    let mut silent = connected(&server).await;
    assert_eq!(rest(&mut silent).await, b"");
    let mut slow = connected(&server).await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nhost: ").await.unwrap();
    assert_eq!(rest(&mut slow).await, b"");
    let mut idle = connected(&server).await;
    idle.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(rest(&mut idle).await.ends_with(b"ok\n"), "closed after it was answered");
}

#[tokio::test]
async fn a_client_that_takes_no_answers_is_closed_in_time() {
    let server = server(brief(), None).await;
    let mut socket = connected(&server).await;
    let many = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    // The server stops reading when its answers are not taken; then it gives up, and writing fails.
    let asking = async { while socket.write_all(many.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(LONG, asking).await.expect("the server does not close");
    assert!(livez(&server).await.ends_with("ok\n"));
}

#[tokio::test]
async fn a_thousand_idle_connections_do_not_keep_a_probe_or_a_scrape_from_its_answer() {
    let server = server(Limits::default(), None).await;
    let mut idle = Vec::new();
    for _ in 0..1_000 {
        idle.push(connected(&server).await);
    }
    let probe = tokio::time::timeout(Duration::from_secs(5), livez(&server)).await;
    assert!(probe.expect("the probe waits").ends_with("ok\n"));
    assert_eq!(rest(&mut idle[0]).await, b"", "the oldest made room");
    // The youngest are still there.
    let youngest = idle.last_mut().unwrap();
    youngest.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(rest(youngest).await.starts_with(b"HTTP/1.1 200 OK"));
}
