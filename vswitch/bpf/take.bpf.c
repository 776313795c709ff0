/* The program of podwire-perf's sink: takes its own test frames off an interface and leaves everything else to the kernel.
 *
 * A test frame is a UDP datagram over IPv4 without options, to the sink's port, that begins with the magic of
 * perf/src/wire/frame.rs. It goes to the AF_XDP socket of the queue it came in on; where there is none, it passes.
 *
 * Its few layouts are here and in xdp.h. `make bpf` compiles it into take.bpf.o, which is committed;
 * vswitch/src/sys/bpf/take.rs loads it.
 */

#define QUEUES_MAX 64
#include "xdp.h"

/* Written by the loader before the program is verified; network order. `Config` in take.rs is the same layout. */
struct config {
	u16 port;
	u16 magic;
};
const volatile struct config podwire_config SEC(".rodata") = {};

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
