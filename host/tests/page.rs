//! Clicks through the live page in headless Chromium. `SLUICEBOX_PICTURES=FOLDER` takes
//! pictures of what it sees.

/// A browser.
#[path = "common/browser.rs"]
mod browser;
/// Plugins, built once.
#[expect(dead_code, reason = "the service loads them itself")]
mod common;
/// Tests that may be ignored.
#[macro_use]
#[path = "common/harness.rs"]
mod harness;
/// A service in a folder of its own.
#[expect(dead_code, reason = "shared by several test programs")]
#[path = "common/service.rs"]
mod service;
/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;

use std::time::Duration;

use browser::Browser;
use harness::Outcome;
use serde_json::json;
use service::Service;

tests![
    everything_is_seen_and_done_on_the_page,
    the_page_says_that_the_host_is_gone_and_goes_on_when_it_is_back,
];

/// Rows that go on for long, some of them bad, counted by user.
fn shop(mode: &str) -> String {
    format!(
        r#"
        name = "shop"
        dead_letters = "../dead.jsonl"
        plugins.hostile.path = "../plugins/hostile.wasm"
        [checkpoints]
        interval = "200ms"
        [sources.actions]
        type = "generator"
        seed = 3
        users = 50
        rate = 500
        [operators.rows]
        select = {{ id = "user_id", n = "quantity" }}
        input = "actions"
        [operators.guarded]
        plugin = "hostile.misbehave"
        parameters = {{ {mode} }}
        input = "rows"
        [operators.totals]
        aggregate = {{ rows = "count()", total = "sum(n)" }}
        key = "id"
        window = "running"
        input = "guarded"
        [operators.minutes]
        aggregate = {{ rows = "count()" }}
        key = "id"
        window = {{ tumbling = "1m" }}
        input = "guarded"
        [sinks.of_totals]
        type = "blackhole"
        input = "totals"
        [sinks.of_minutes]
        type = "blackhole"
        input = "minutes"
        "#
    )
}

/// Some rows are bad.
const GOOD: &str = "mode = \"reject\", at = \"user-000007\"";

fn view(browser: &mut Browser, title: &str) {
    browser.click("nav.tabs a", title);
    browser.until(&format!(
        "document.querySelector('nav.tabs a[aria-current]')?.textContent === {title:?}"
    ));
}

fn everything_is_seen_and_done_on_the_page() -> Outcome {
    let mut browser = Browser::start()?;
    let service = Service::start(&[("shop", &shop(GOOD))]);
    service.until("held", |shop| shop["changes"][0]["outcome"] == "held");
    service.write("shop", &shop("mode = \"panic\""));
    service.until("taken back", |shop| {
        shop["changes"][1]["outcome"] == "taken_back" && shop["phase"] == "running"
    });
    let plugin = std::fs::read(common::plugin_file("hostile")).expect("it is built");
    assert_eq!(service.upload(&plugin).0, 201);
    browser.resize(1280, 900, "light");
    browser.open(&format!("http://{}/", service.address()));
    browser.until_text("running");
    browser.until("document.querySelector('table.plugins td')?.innerText === 'hostile'");
    let cells = "[...document.querySelectorAll('table.pipelines td')]";
    browser.until(&format!(
        "{cells}.some((cell) => cell.innerText.endsWith('/s'))"
    ));
    browser.until("document.querySelector('table.pipelines .bad')?.innerText !== '0'");
    // Dates are those of the time of day beside them.
    browser.call(
        "Emulation.setTimezoneOverride",
        json!({ "timezoneId": "Pacific/Auckland" }),
    );
    let dated = "import('/page/format.js').then((it) => it.dated(Date.UTC(2026, 10, 19, 11, 30)))";
    assert_eq!(browser.value(dated), "2026-11-20 00:30:00");
    browser.call(
        "Emulation.setTimezoneOverride",
        json!({ "timezoneId": "UTC" }),
    );
    browser.picture("list");
    browser.click("main a", "shop");

    browser.until("document.querySelectorAll('svg g.node').length === 7");
    browser.until("document.querySelector('svg g.node.source').textContent.includes('/s')");
    browser.until_text("tried and taken back");
    browser.picture("graph");
    // By keyboard alone: the first node, and what is told of it.
    browser.value("document.querySelector('svg g.node').focus()");
    browser.press("Enter");
    browser.until("document.querySelector('main').innerText.includes('Rows out')");
    browser.until_text("Its watermark is that of partition");
    browser.until("document.querySelector('dl.facts').innerText.includes('Blocked')");
    browser.click("main button", "totals");
    browser.until("document.querySelector('g.chosen .name').textContent === 'totals'");
    browser.picture("node");

    browser.click("main a", "Look at its state");
    browser.until("document.querySelectorAll('main tbody tr').length > 20");
    browser.fill("form input", "user-000008");
    browser.click("form button", "Look");
    browser.until("document.querySelectorAll('main tbody tr').length === 1");
    browser.until_text("\"sum(n)\"");
    browser.picture("state");
    browser.fill("form label + label select", "checkpoint");
    browser.click("form button", "Look");
    browser.until("document.querySelectorAll('main tbody tr').length === 1");

    view(&mut browser, "Rows");
    browser.until("document.querySelectorAll('.rows li').length > 5");
    browser.until_text("rows left out");
    browser.picture("rows");
    browser.click("main button", "Hold");
    browser.until_text("Held.");

    view(&mut browser, "Charts");
    browser.until("document.querySelectorAll('.chart canvas').length >= 5");
    std::thread::sleep(Duration::from_secs(3));
    browser.picture("charts");

    view(&mut browser, "Dead letters");
    browser.until("document.querySelector('main input[type=checkbox]')");
    browser.picture("letters");
    browser.fill("form label:nth-of-type(3) input", "trap");
    browser.click("form button", "Look");
    browser.until("document.querySelector('main p.faint').innerText === '0 letters'");
    browser.fill("form label:nth-of-type(3) input", "");
    browser.click("form button", "Look");
    browser.until("document.querySelector('main input[type=checkbox]')");
    browser.click("main td button", "Edit");
    browser.fill("main td textarea", "{\"id\":\"somebody\",\"n\":1}");
    browser.click("main td button", "Replay this");
    browser.until_text("Replay 1 of");
    browser.until_text(": done");
    browser.fill("form select", "replayed");
    browser.until("document.querySelector('main p.faint').innerText === '1 letter'");
    browser.picture("replayed");

    view(&mut browser, "Checkpoints");
    browser.fill("form input", "before-sale");
    browser.click("form button", "Make");
    browser.until_text("is kept as before-sale");
    browser.until(
        "[...document.querySelectorAll('td')].some((cell) => cell.innerText === 'before-sale')",
    );
    browser.click("main tr:has(strong) button", "Restart from this");
    browser.until_text("cannot go back to later checkpoints any more");
    browser.picture("checkpoints");
    browser.click("main tr:has(strong) button", "Cancel");

    view(&mut browser, "Changes");
    browser.until("document.querySelectorAll('section.change').length === 2");
    browser.until("document.querySelector('section.change .phase').innerText === 'taken back'");
    browser.until_text("guarded");
    browser.until_text("by files");
    browser.click("section.change summary", "What it changed");
    browser.until("document.querySelector('.diff .added')?.innerText.includes('panic')");
    browser.picture("changes");

    view(&mut browser, "Checkpoints");
    browser.click("main tr:has(strong) button", "Restart from this");
    browser.until_text("was refused or taken back is tried again");
    browser.click("main tr:has(strong) button", "Go back to checkpoint");
    browser.until_text("It goes back to checkpoint");
    service.until("back at the savepoint", |shop| {
        shop["changes"][2]["outcome"] == "taken_back" && shop["phase"] == "running"
    });
    browser.until(
        "[...document.querySelectorAll('td')].some((cell) => cell.innerText === 'before-sale')",
    );

    browser.fill("form input", "spare");
    browser.click("form button", "Make");
    browser.until_text("is kept as spare");
    // A host may need its last two.
    service.until("two later ones", |shop| {
        let made = shop["revision"]["checkpoints"].as_array().expect("a list");
        let spare = made.iter().position(|made| made["name"] == "spare");
        spare.is_some_and(|spare| spare + 2 < made.len())
    });
    let spare = "[...document.querySelectorAll('table.kept tr')].find((row) => row.innerText.includes('spare'))";
    browser.until(spare);
    browser.value(&format!(
        "[...{spare}.querySelectorAll('button')].find((it) => it.innerText === 'Delete').click()"
    ));
    browser.click("main tr button.first", "Delete spare");
    browser.until_text("spare is deleted.");
    browser.until(&format!("!{spare}"));

    view(&mut browser, "File");
    browser.until("document.querySelector('textarea.file').value.includes('panic')");
    browser.fill("textarea.file", "name = 3");
    browser.click("main button", "Plan this");
    browser.until("document.querySelector('main p[role=alert]')?.innerText.includes('name')");
    let other = shop(GOOD).replace(
        "key = \"id\"\n        window = \"running\"",
        "key = \"n\"\n        window = \"running\"",
    );
    browser.fill("textarea.file", &other);
    browser.click("main button", "Plan this");
    browser.until("document.querySelector('label.agree')?.innerText.includes('totals')");
    browser.until("[...document.querySelectorAll('main button')].find((it) => it.innerText === 'Put it').disabled");
    browser.picture("file");
    browser.click("label.agree input", "");
    browser.click("main button", "Put it");
    browser.until_text("It is written");
    service.until("put", |shop| shop["changes"][3]["outcome"] == "held");

    browser.click("main button", "Pause");
    browser.until("document.querySelector('.title .phase').innerText === 'paused'");
    browser.click("main button", "Start");
    browser.until("document.querySelector('.title .phase').innerText === 'running'");

    for (name, width, height, scheme) in [
        ("phone", 390, 844, "light"),
        ("phone-dark", 390, 844, "dark"),
        ("dark", 1280, 900, "dark"),
    ] {
        browser.resize(width, height, scheme);
        browser.click("header a", "All pipelines");
        browser.until("document.querySelector('table.pipelines')");
        browser.picture(&format!("{name}-list"));
        browser.click("main a", "shop");
        for title in [
            "Graph",
            "Charts",
            "Rows",
            "State",
            "Dead letters",
            "Checkpoints",
            "Changes",
            "File",
        ] {
            view(&mut browser, title);
            std::thread::sleep(Duration::from_millis(2_500));
            let wide = browser.value("document.documentElement.scrollWidth");
            assert!(
                wide.as_u64() <= Some(width.into()),
                "{name} {title}: {wide}"
            );
            // Whatever is done is done without scrolling sideways.
            let right = browser.value(
                "Math.max(0, ...[...document.querySelectorAll('main td button, main td input')]
                    .map((it) => it.getBoundingClientRect().right))",
            );
            assert!(
                right.as_f64() <= Some(width.into()),
                "{name} {title}: {right}"
            );
            let narrowest = browser.value(
                "Math.min(400, ...[...document.querySelectorAll('main td.wide')]
                    .map((it) => it.clientWidth).filter((it) => it > 0))",
            );
            assert!(
                width > 600 || narrowest.as_u64() > Some(200),
                "{name} {title}: {narrowest}"
            );
            browser.picture(&format!("{name}-{}", title.to_lowercase()));
        }
    }
    // The browser notes answers that refuse as errors; that to the bad file was meant.
    let is_meant = |error: &String| error.contains("422") && error.contains("/shop/plan?");
    browser.errors.retain(|error| !is_meant(error));
    assert_eq!(browser.errors, Vec::<String>::new());
    Ok(())
}

fn the_page_says_that_the_host_is_gone_and_goes_on_when_it_is_back() -> Outcome {
    let mut browser = Browser::start()?;
    // Nothing that is connected to the host that ends is used for the next one.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).build();
    let client = client.expect("it is built");
    let pipelines = [("shop", &*shop(GOOD))];
    let mut service = Service::start_with(&pipelines, &["--rate", "1000"], client);
    let address = service.address().to_owned();
    browser.resize(1280, 900, "light");
    browser.open(&format!("http://{address}/#/shop"));
    browser.until("document.querySelectorAll('svg g.node').length === 7");
    service.end(libc::SIGKILL);
    browser.until("document.querySelector('[role=alert]')?.innerText.includes('has not answered')");
    browser.picture("gone");
    service.begin_at(&address);
    browser.until("!document.querySelector('[role=alert]')");
    browser.until("document.querySelector('.title .phase').innerText !== ''");
    Ok(())
}
