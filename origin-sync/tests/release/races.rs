//! Many at once, and ends at any moment: one wins, the others say so, and nobody sees half of anything.

use std::time::Duration;

use crate::{World, script};

#[tokio::test]
async fn of_eight_pushes_of_other_bytes_one_wins() {
    let world = World::new().await;
    for number in 0..8 {
        let salt = number.to_string();
        world.folder(
            &format!("dist{number}"),
            &[("a.js", &script(60, &salt)), ("b.js", &script(40, &salt))],
        );
    }
    let lines: Vec<String> = (0..8)
        .map(|number| format!("push dist{number} --name lock --release 1.0.0 --no-cache"))
        .collect();
    let runs: Vec<_> = lines.iter().map(|line| world.command(line)).collect();
    let children: Vec<_> = runs
        .into_iter()
        .map(|mut run| run.stderr(std::process::Stdio::piped()).spawn().unwrap())
        .collect();
    let mut codes = Vec::new();
    for child in children {
        let output = tokio::time::timeout(Duration::from_secs(120), child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        let code = output.status.code().unwrap();
        assert!(
            code == 0 || said.contains("is released already, and is something else"),
            "{said}"
        );
        codes.push(code);
    }
    codes.sort_unstable();
    assert_eq!(codes, [0, 3, 3, 3, 3, 3, 3, 3]);
    world.whole("lock", "1.0.0").await;
    // What is there is of one folder, not a mix.
    let manifest = world.manifest("lock", "1.0.0").await.document;
    let digest = |path: &str| manifest.file(path).unwrap().sha256;
    let mixed = (0..8).filter(|number| {
        let salt = number.to_string();
        digest("a.js") == origin_sync::release::Sha256::of(&script(60, &salt))
            && digest("b.js") == origin_sync::release::Sha256::of(&script(40, &salt))
    });
    assert_eq!(mixed.count(), 1);
}

#[tokio::test]
async fn of_eight_promotes_each_wins_or_says_who_did() {
    let world = World::new().await;
    for number in 0..8 {
        world.folder("dist", &[("a.js", format!("var a = {number};").as_bytes())]);
        world
            .good(&format!("push dist --name lock --release 1.0.{number}"))
            .await;
    }
    let lines: Vec<String> = (0..8)
        .map(|number| format!("promote lock 1.0.{number} --alias 1 --alias latest"))
        .collect();
    let children: Vec<_> = lines
        .iter()
        .map(|line| {
            world
                .command(line)
                .stdout(std::process::Stdio::piped())
                .stderr(std::process::Stdio::piped())
                .spawn()
                .unwrap()
        })
        .collect();
    let mut won = 0;
    for child in children {
        let output = tokio::time::timeout(Duration::from_secs(120), child.wait_with_output())
            .await
            .unwrap()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        match output.status.code().unwrap() {
            0 => won += 1,
            3 => assert!(
                said.contains("somebody else changed") && said.contains("serial "),
                "{said}"
            ),
            code => panic!("{code}: {said}"),
        }
    }
    assert!(won >= 1);
    let channel = world.channel("lock").await;
    // One serial for each that won: none was written over unread.
    assert_eq!(channel.serial, won);
    assert_eq!(channel.aliases["1"].version, channel.aliases["latest"].version);
    assert_eq!(channel.aliases["1"].manifest, channel.aliases["latest"].manifest);
}

#[tokio::test]
async fn a_push_that_is_killed_at_any_moment_leaves_nothing_half() {
    let world = World::new().await;
    let files: Vec<(String, Vec<u8>)> = (0..12)
        .map(|number| (format!("f{number}.js"), script(60, &number.to_string())))
        .collect();
    let files: Vec<(&str, &[u8])> = files
        .iter()
        .map(|(path, bytes)| (path.as_str(), bytes.as_slice()))
        .collect();
    world.folder("dist", &files);
    let mut killed = 0;
    for round in 0..50_u64 {
        let line = format!("push dist --name lock --release 1.0.{round}");
        let mut child = world
            .command(&line)
            .stderr(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Each round at another request, and somewhere within it: the log is the clock.
        world.server.clear_log();
        let moment = usize::try_from((round * 37) % 53).unwrap();
        let reached = world.server.until_seen(|seen| seen.len() > moment);
        tokio::select! {
            () = reached => {}
            _ = child.wait() => {}
        }
        child.start_kill().ok();
        if !child.wait().await.unwrap().success() {
            killed += 1;
        }
        let key = format!("releases/lock/1.0.{round}.json");
        if world.keys("releases/").contains(&key) {
            world.whole("lock", &format!("1.0.{round}")).await;
        }
        // So that each round has something to store, and the next one does not find it all.
        if round % 5 == 0 {
            world.good(&line).await;
            world.whole("lock", &format!("1.0.{round}")).await;
            for blob in world.keys("blobs/") {
                world
                    .server
                    .store()
                    .delete("widgets", &format!("cdn/{blob}"))
                    .await
                    .unwrap();
            }
            for manifest in world.keys("releases/") {
                world
                    .server
                    .store()
                    .delete("widgets", &format!("cdn/{manifest}"))
                    .await
                    .unwrap();
            }
        }
    }
    assert!(killed >= 25, "only {killed} of 50 were killed under way");
    world.good("push dist --name lock --release 2.0.0").await;
    world.whole("lock", "2.0.0").await;
}
