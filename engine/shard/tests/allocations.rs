//! The path of a command whose key is this shard's allocates nothing once buffers have grown. Alone in its file, because
//! the allocator that counts is the whole process's.

mod store;

use dkv_shard::PortKind;
use store::{PLAIN, Store, command};

#[test]
fn a_local_get_allocates_nothing() {
    let mut store = Store::new(PLAIN);
    let client = store.connect(0, 0, PortKind::Client);
    let mut pipeline = Vec::new();
    for i in 0..100 {
        let key = format!("key{i}");
        assert_eq!(store.call(client, &["SET", &key, "some value"]), "+OK\r\n");
        pipeline.extend(command(&["GET", &key]));
    }
    let (now, session) = (store.now, store.clients[client].session);
    let shard = &mut store.shards[0].1;
    let mut spare = dkv_shard::Output::default();
    let mut turn = |input: &[u8]| {
        shard.input(now, session, input);
        assert!(shard.next_batch().is_none());
        shard.orders().clear();
        let output = shard.take_output(session, std::mem::take(&mut spare)).expect("replies");
        spare = output;
        spare.bytes.len()
    };
    let one = command(&["GET", "key7"]);
    for _ in 0..10 {
        turn(&pipeline);
        turn(&one);
    }
    let measured = allocation_counter::measure(|| {
        for _ in 0..1000 {
            assert_eq!(turn(&pipeline), 100 * "$10\r\nsome value\r\n".len());
            assert_eq!(turn(&one), "$10\r\nsome value\r\n".len());
        }
    });
    assert_eq!(measured.count_total, 0, "{measured:?}");
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![0u8; 100])));
    assert_eq!(counted.count_total, 1, "the counter counts");
}
