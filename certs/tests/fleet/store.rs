//! What both backends promise: conditional writes that one writer wins, whole reads, keys in order.

use std::sync::Arc;

use certs::store::{Objects, OnlyIf};

use crate::lab::Lab;

#[tokio::test]
async fn both_backends_keep_the_same_promises() {
    for lab in [Lab::start().await, Lab::in_folder().await] {
        let objects = &lab.objects;
        assert_eq!(objects.get("a/b").await.unwrap(), None);
        let first = objects.put("a/b", b"1".to_vec(), OnlyIf::Absent).await.unwrap();
        let refused = objects
            .put("a/b", b"2".to_vec(), OnlyIf::Absent)
            .await
            .unwrap_err();
        assert!(refused.is_conflict(), "{refused:?}");
        let second = objects
            .put("a/b", b"2".to_vec(), OnlyIf::Unchanged(first.clone()))
            .await
            .unwrap();
        let late = objects
            .put("a/b", b"3".to_vec(), OnlyIf::Unchanged(first))
            .await
            .unwrap_err();
        assert!(late.is_conflict(), "{late:?}");
        let read = objects.get("a/b").await.unwrap().unwrap();
        assert_eq!((read.body.as_slice(), &read.tag), (b"2".as_slice(), &second));
        objects.put("a/c", Vec::new(), OnlyIf::Absent).await.unwrap();
        objects.put("b", Vec::new(), OnlyIf::Absent).await.unwrap();
        assert_eq!(objects.list("a/").await.unwrap(), ["a/b", "a/c"]);
        objects.delete("a/b").await.unwrap();
        objects.delete("a/b").await.unwrap();
        assert_eq!(objects.list("").await.unwrap(), ["a/c", "b"]);
        let gone = objects
            .put("a/b", b"3".to_vec(), OnlyIf::Unchanged(second))
            .await
            .unwrap_err();
        assert!(gone.is_conflict(), "{gone:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_writers_at_once_one_wins() {
    for lab in [Lab::start().await, Lab::in_folder().await] {
        for round in 0..5 {
            let key = format!("race/{round}");
            let racing: Vec<_> = (0..12_u8)
                .map(|number| {
                    let (objects, key): (Arc<dyn Objects>, _) = (Arc::clone(&lab.objects), key.clone());
                    tokio::spawn(
                        async move { objects.put(&key, vec![number; 100], OnlyIf::Absent).await.is_ok() },
                    )
                })
                .collect();
            let mut won = Vec::new();
            for (number, racing) in racing.into_iter().enumerate() {
                if racing.await.unwrap() {
                    won.push(number);
                }
            }
            assert_eq!(won.len(), 1, "{won:?}");
            let body = lab.objects.get(&key).await.unwrap().unwrap().body;
            assert_eq!(body, vec![u8::try_from(won[0]).unwrap(); 100]);
        }
    }
}

#[tokio::test]
async fn no_key_leaves_the_folder() {
    let lab = Lab::in_folder().await;
    for key in ["../x", "a/../../x", "/etc/x", "", "a//b", "a/.lock"] {
        let refused = lab.objects.put(key, b"x".to_vec(), OnlyIf::Absent).await;
        assert!(refused.is_err(), "{key}");
    }
}
