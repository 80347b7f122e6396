//! What of an application's answers gets to the disk, and what does not.

use std::path::Path;

use tempfile::TempDir;

use super::application::{Act, Application, answer, ok};
use crate::client::Answer;
use crate::support::TestEdge;

async fn node(app: &Application, folder: &Path) -> TestEdge {
    let disk = format!(
        "[cache]\ndisk = {{ path = \"{}\", size = \"64MiB\" }}\n",
        folder.join("cache").display()
    );
    TestEdge::start_http(&app.url(), "", &disk).await
}

async fn settle(edge: &TestEdge) {
    edge.until("the fetches", || edge.exchange().cache().flights.is_empty())
        .await;
    edge.exchange().cache().disk.as_ref().unwrap().flush().await;
}

fn status(answer: &Answer) -> &str {
    answer.field("cache-status").unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_for_the_first_client_alone_are_not_on_the_disk() {
    let folder = TempDir::new().unwrap();
    let fields = "cache-control: max-age=60, private=\"x-a\"\r\nx-a: secret-of-one\r\nx-c: 3\r\n";
    let app = Application::saying(ok(fields, "x")).await;
    let edge = node(&app, folder.path()).await;
    assert_eq!(edge.get("/a", &[]).await.field("x-a"), Some("secret-of-one"));
    settle(&edge).await;
    edge.stop().await;
    for entry in std::fs::read_dir(folder.path().join("cache")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(lacks(&bytes, b"secret-of-one"));
    }
    let edge = node(&app, folder.path()).await;
    let again = edge.get("/a", &[]).await;
    assert!(status(&again).ends_with("; detail=disk"), "{}", status(&again));
    assert_eq!((again.field("x-a"), again.field("x-c")), (None, Some("3")));
    edge.stop().await;
}

fn lacks(bytes: &[u8], word: &[u8]) -> bool {
    !bytes.windows(word.len()).any(|window| window == word)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_is_never_on_the_disk_and_never_passes_for_the_whole_after_a_restart() {
    const WHOLE: &str = "0123456789";
    let folder = TempDir::new().unwrap();
    let app = Application::start(|seen| {
        let fields = "cache-control: max-age=60\r\netag: \"a\"\r\n";
        vec![Act::Send(match seen.field("range") {
            None => ok(fields, WHOLE),
            Some(_) => {
                let fields = format!("{fields}content-range: bytes 0-3/10\r\n");
                answer("206 Partial Content", &fields, &WHOLE[..4])
            }
        })]
    })
    .await;
    let range = [("range", "bytes=0-3")];
    let edge = node(&app, folder.path()).await;
    let part = edge.get("/a", &range).await;
    assert_eq!((part.status, part.text()), (206, "0123"));
    let held = edge.get("/a", &range).await;
    assert!(status(&held).contains("; hit"), "{}", status(&held));
    settle(&edge).await;
    assert_eq!(edge.exchange().cache().disk.as_ref().unwrap().totals().entries, 0);
    edge.stop().await;
    let edge = node(&app, folder.path()).await;
    let whole = edge.get("/a", &[]).await;
    assert_eq!((whole.status, whole.text()), (200, WHOLE));
    assert!(status(&whole).contains("fwd=uri-miss"), "{}", status(&whole));
    settle(&edge).await;
    edge.stop().await;
    // The whole is, and a part of it is answered out of that.
    let edge = node(&app, folder.path()).await;
    let part = edge.get("/a", &range).await;
    assert_eq!((part.status, part.text()), (206, "0123"));
    assert!(status(&part).ends_with("; detail=disk"), "{}", status(&part));
    edge.stop().await;
}
