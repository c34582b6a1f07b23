//! Links between real sockets without faults: order, content, and no files left behind.

use bytes::Bytes;
use engine::link::{ClusterKey, Inbound, LinkError, Listen, Outbound, activations_to_bytes, bytes_to_activations};
use schema::frame::{Frame, FrameError, HEADER_BYTES_MAX};

use link_help::{gate, hop, is_empty, step};

mod link_help;

/// Sends 1,000 hops of changing size from one task and receives them in another.
async fn a_thousand_arrive_in_order(listen: Listen, key: Option<ClusterKey>) {
    let dir = tempfile::tempdir().unwrap();
    let mut inbound = Inbound::bind_in(dir.path(), listen).await.unwrap();
    let endpoint = inbound.endpoint().to_owned();
    let mut outbound = Outbound::connect_in(dir.path(), &endpoint, key.as_ref()).await.unwrap();
    let values =
        |step: u64| (0..8 * (1 + step as u32 % 300)).map(|index| (index as f32) - step as f32).collect::<Vec<_>>();
    let send = async {
        for number in 0..1000 {
            let frame = hop(number, 1 + number as u32 % 300, 8);
            outbound.send(&frame, activations_to_bytes(&values(number))).await.unwrap();
        }
        outbound.flush().await.unwrap();
    };
    let receive = async {
        let mut received = Vec::new();
        for number in 0..1000 {
            let message = inbound.receive().await.unwrap();
            assert_eq!(message.frame, hop(number, 1 + number as u32 % 300, 8));
            bytes_to_activations(&message.activations, &mut received);
            assert_eq!(received, values(number));
        }
    };
    tokio::join!(send, receive);
    drop((inbound, outbound));
    assert!(is_empty(dir.path()), "files were left behind");
}

#[tokio::test]
async fn a_thousand_messages_arrive_in_order_on_one_machine() {
    a_thousand_arrive_in_order(Listen::Ipc, None).await;
}

#[tokio::test]
async fn a_thousand_messages_arrive_in_order_through_the_gate() {
    let key = ClusterKey::generate().unwrap();
    a_thousand_arrive_in_order(gate(&key), Some(key)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_holds_on_a_runtime_with_several_threads_too() {
    let key = ClusterKey::generate().unwrap();
    a_thousand_arrive_in_order(gate(&key), Some(key)).await;
}

#[tokio::test]
async fn a_frame_with_token_ids_and_no_activations_arrives() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbound = Inbound::bind_in(dir.path(), Listen::Ipc).await.unwrap();
    let mut outbound = Outbound::connect_in(dir.path(), inbound.endpoint(), None).await.unwrap();
    outbound.send(&hop(5, 3, 0), Bytes::new()).await.unwrap();
    let message = inbound.receive().await.unwrap();
    assert_eq!((message.frame, message.activations), (hop(5, 3, 0), Bytes::new()));
}

#[tokio::test]
async fn a_large_message_goes_through_the_gate_whole() {
    let dir = tempfile::tempdir().unwrap();
    let key = ClusterKey::generate().unwrap();
    let mut inbound = Inbound::bind_in(dir.path(), gate(&key)).await.unwrap();
    let mut outbound = Outbound::connect_in(dir.path(), inbound.endpoint(), Some(&key)).await.unwrap();
    // 96 MiB is more than may be in flight together with another message.
    let bytes = Bytes::from((0..96_u32 << 20).map(|index| (index % 253) as u8).collect::<Vec<_>>());
    outbound.send(&hop(1, 3072, 8192), bytes.clone()).await.unwrap();
    let message = inbound.receive().await.unwrap();
    assert!(message.activations == bytes);
}

#[tokio::test]
async fn the_frames_of_several_senders_arrive_each_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbound = Inbound::bind_in(dir.path(), Listen::Ipc).await.unwrap();
    let mut outbounds = Vec::new();
    for _ in 0..5 {
        outbounds.push(Outbound::connect_in(dir.path(), inbound.endpoint(), None).await.unwrap());
    }
    for round in 0..20 {
        for (sender, outbound) in outbounds.iter_mut().enumerate() {
            outbound.send(&hop(round, 1 + sender as u32, 0), Bytes::new()).await.unwrap();
        }
    }
    let mut next = [0; 5];
    for _ in 0..100 {
        let Frame::Hop(hop) = inbound.receive().await.unwrap().frame else { panic!("not a hop") };
        let sender = hop.rows as usize - 1;
        assert_eq!(hop.step.0, next[sender]);
        next[sender] += 1;
    }
}

#[tokio::test]
async fn the_sender_refuses_messages_that_no_receiver_takes_and_the_link_stays_usable() {
    let dir = tempfile::tempdir().unwrap();
    let mut inbound = Inbound::bind_in(dir.path(), Listen::Ipc).await.unwrap();
    let mut outbound = Outbound::connect_in(dir.path(), inbound.endpoint(), None).await.unwrap();
    let short = outbound.send(&hop(0, 2, 8), vec![0; 60]).await.unwrap_err();
    assert!(matches!(short, LinkError::Frame(FrameError::Activations { found: 60, expected: 64, .. })), "{short:?}");
    let large = outbound.send(&hop(0, 4096, 32_768), vec![0; 4096 * 32_768 * 4]).await.unwrap_err();
    assert!(matches!(large, LinkError::TooLarge { found } if found == 4096 * 32_768 * 4), "{large:?}");
    let Frame::Hop(mut long) = hop(0, 1, 0) else { unreachable!() };
    long.slices[0].blocks = vec![0; HEADER_BYTES_MAX / size_of::<u32>()];
    let long = outbound.send(&Frame::Hop(long), Bytes::new()).await.unwrap_err();
    assert!(matches!(long, LinkError::Frame(FrameError::TooLong { .. })), "{long:?}");
    outbound.send(&hop(1, 1, 0), Bytes::new()).await.unwrap();
    assert_eq!(step(&inbound.receive().await.unwrap().frame), 1);
}

#[tokio::test]
async fn a_cancelled_receive_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let key = ClusterKey::generate().unwrap();
    let mut inbound = Inbound::bind_in(dir.path(), gate(&key)).await.unwrap();
    let mut outbound = Outbound::connect_in(dir.path(), inbound.endpoint(), Some(&key)).await.unwrap();
    let send = async {
        for number in 0..100 {
            outbound.send(&hop(number, 64, 512), vec![0; 64 * 512 * 4]).await.unwrap();
        }
        outbound.flush().await.unwrap();
    };
    let receive = async {
        let (mut next, mut given_up) = (0, 0);
        while next < 100 {
            tokio::select! {
                biased;
                message = inbound.receive() => {
                    assert_eq!(step(&message.unwrap().frame), next);
                    next += 1;
                }
                () = tokio::task::yield_now() => given_up += 1,
            }
        }
        assert!(given_up > 0, "no receive was given up");
    };
    tokio::join!(send, receive);
}

#[tokio::test]
async fn dropping_both_ends_ends_every_task() {
    let dir = tempfile::tempdir().unwrap();
    let key = ClusterKey::generate().unwrap();
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let mut inbound = Inbound::bind_in(dir.path(), gate(&key)).await.unwrap();
    let mut outbound = Outbound::connect_in(dir.path(), inbound.endpoint(), Some(&key)).await.unwrap();
    outbound.send(&hop(0, 1, 0), Bytes::new()).await.unwrap();
    inbound.receive().await.unwrap();
    assert!(tasks() > 0);
    drop((inbound, outbound));
    let ended = async {
        while tasks() > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(link_help::WAIT_MAX, ended).await.expect("tasks live on");
    assert!(is_empty(dir.path()));
}
