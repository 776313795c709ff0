/* The program of podwire-perf's sink: takes its own test frames off an interface and leaves everything else to the kernel.
 *
 * A test frame is a UDP datagram over IPv4 without options, to the sink's port, that begins with the magic of
 * perf/src/wire/frame.rs. It goes to the AF_XDP socket of the queue it came in on; where there is none, it passes.
 *
 * Needs no kernel or libbpf headers, as steer.bpf.c. `make bpf` compiles it into take.bpf.o, which is committed;
 * vswitch/src/sys/bpf/take.rs loads it.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))

/* linux/bpf.h: enum bpf_map_type, enum xdp_action, struct xdp_md, and the number of the helper. */
#define BPF_MAP_TYPE_XSKMAP 17
#define XDP_PASS 2
struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};
static long (*const bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

/* One AF_XDP socket a receive queue. */
#define QUEUES_MAX 64
struct {
	int (*type)[BPF_MAP_TYPE_XSKMAP];
	int (*max_entries)[QUEUES_MAX];
	u32 *key;
	u32 *value;
} podwire_socks SEC(".maps");

/* Written by the loader before the program is verified; network order. `Config` in take.rs is the same layout. */
struct config {
	u16 port;
	u16 magic;
};
const volatile struct config podwire_config SEC(".rodata") = {};

#define be16(value) __builtin_bswap16(value)

/* Ethernet, IPv4 (RFC 791) without options, UDP (RFC 768), and the first bytes of the payload. */
struct test_frame {
	u8 addresses[12];
	u16 type;
	u8 version_ihl;
	u8 tos;
	u16 total_len;
	u16 id;
	u16 fragment;
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u16 ip_addresses[4];
	u16 source;
	u16 destination;
	u16 udp_len;
	u16 udp_checksum;
	u16 magic;
};

SEC("xdp.frags")
int podwire_take(struct xdp_md *ctx)
{
	const struct test_frame *frame = (const void *)(unsigned long)ctx->data;
	const u8 *end = (const u8 *)(unsigned long)ctx->data_end;

	if ((const u8 *)(frame + 1) > end)
		return XDP_PASS;
	if (frame->type != be16(0x0800) || frame->version_ihl != 0x45 || frame->protocol != 17)
		return XDP_PASS;
	if (frame->destination != podwire_config.port || frame->magic != podwire_config.magic)
		return XDP_PASS;
	return bpf_redirect_map(&podwire_socks, ctx->rx_queue_index, XDP_PASS);
}

const char podwire_licence[] SEC("license") = "Apache-2.0";

/* Which source this object was made of: a test compares it with the file beside it. */
#ifndef SOURCE_SHA256
#define SOURCE_SHA256 "unknown"
#endif
const char podwire_source[] SEC("source_sha256") = SOURCE_SHA256;
