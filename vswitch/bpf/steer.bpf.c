/* The steering program of the AF_XDP uplink.
 *
 * It takes what is ours off the NIC and leaves everything else to the kernel: only whole, unfragmented UDP datagrams to
 * the VXLAN port at our own VTEP address, with one IP packet inside, go to the AF_XDP socket of the queue they came in
 * on. Everything else, and everything when the queue has no socket, passes: other traffic, other addresses, tagged
 * frames, IPv4 options, IPv6 extension headers, fragments, lengths that do not fit together, frames longer than the
 * sockets take. What passes reaches the UDP socket that stays bound beside, so nothing is lost by being careful here.
 *
 * The inner packet must fill the datagram: where the stack hands over many datagrams merged into one frame (on a veth,
 * or after GRO, in generic mode), only the kernel knows where to cut, and tells it to the UDP socket. A frame whose
 * sender put bytes behind the inner packet looks the same, so guessing would let pods forge datagrams. A kernel's tunnel
 * on a veth hands over inner UDP super-frames, which do fill the datagram; what could be one, since its checksums were left
 * to a NIC, passes too.
 *
 * Needs no kernel or libbpf headers: the few layouts it reads are written out below and in xdp.h, with where they come from.
 * `make bpf` compiles it into steer.bpf.o, which is committed; vswitch/src/sys/bpf.rs loads it.
 */

#define QUEUES_MAX 64
#include "xdp.h"

static u64 (*const bpf_xdp_get_buff_len)(struct xdp_md *ctx) = (void *)188;

/* What is ours; written by the loader before the program is verified, never later. Addresses and port are in network
 * order, as in the packets; an address of zero is none. `Config` in vswitch/src/sys/bpf.rs is the same layout. */
struct config {
	u32 v6[4];
	u32 v4;
	/* Longest frame in bytes that the sockets take. */
	u32 frame_max;
	u16 port;
	/* Whether the stack may hand over super-frames: in generic mode. */
	u16 merged;
};
const volatile struct config podwire_config SEC(".rodata") = {};

#define ETH_LEN 14
#define IPV4_LEN 20
#define IPV6_LEN 40
#define UDP_LEN 8
#define VXLAN_LEN 8
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_ICMPV6 58
#define TYPE_IPV4 0x0800
#define TYPE_IPV6 0x86dd

struct ethernet {
	u8 addresses[12];
	u16 type;
};

/* RFC 791. */
struct ipv4 {
	u8 version_ihl;
	u8 tos;
	u16 total_len;
	u16 id;
	u16 fragment;
	u8 ttl;
	u8 protocol;
	u16 checksum;
	u32 source;
	u32 destination;
};

/* RFC 8200. */
struct ipv6 {
	u32 version_class_flow;
	u16 payload_len;
	u8 next_header;
	u8 hop_limit;
	u32 source[4];
	u32 destination[4];
};

/* RFC 768. */
struct udp {
	u16 source;
	u16 destination;
	u16 len;
	u16 checksum;
};

/* What lies behind the outer UDP header, as far as it is looked at. */
struct inner {
	u8 vxlan[VXLAN_LEN];
	struct ethernet eth;
	/* The first bytes of either IP header: version 4 has its total length at 2, version 6 its payload's at 4. */
	u8 version;
	u8 tos;
	u16 v4_total_len;
	u16 v6_payload_len;
	u8 v6_next_header;
	u8 ttl;
	u8 hop;
	u8 v4_protocol;
};

/* Sum of a pseudo-header (RFC 768, RFC 8200) in network order, folded to 16 bits: what a sender that left the checksum to
 * a NIC wrote into the field. */
static __attribute__((always_inline)) u16 pseudo_sum(const u16 *addresses, int words, u32 payload_len)
{
	u32 sum = be16(PROTOCOL_UDP) + be16(payload_len);
	int at;

#pragma clang loop unroll(full)
	for (at = 0; at < words; at++)
		sum += addresses[at];
	sum = (sum & 0xffff) + (sum >> 16);
	return (sum & 0xffff) + (sum >> 16);
}

/* Whether the inner packet can not be several that a UDP sender left merged. Only those whose checksums are left too are;
 * TCP super-frames may come, as they do from a UDP socket. */
static __attribute__((always_inline)) int is_whole(u8 protocol, u16 checksum, u16 pseudo)
{
	if (!podwire_config.merged)
		return 1;
	if (protocol == PROTOCOL_UDP)
		return checksum && checksum != pseudo;
	return protocol == PROTOCOL_TCP || protocol == PROTOCOL_ICMP || protocol == PROTOCOL_ICMPV6;
}

/* Whether the datagram is for our port, as long as its IP packet says, and filled by one inner IP packet. */
static __attribute__((always_inline)) int is_tunnel(const struct udp *udp, const u8 *end, u32 payload_len, u16 pseudo)
{
	const struct inner *inner = (const void *)(udp + 1);
	u32 headers_len = UDP_LEN + VXLAN_LEN + ETH_LEN;

	if (udp->destination != podwire_config.port || be16(udp->len) != payload_len)
		return 0;
	if ((const u8 *)(inner + 1) > end)
		return 0;
	if (inner->eth.type == be16(TYPE_IPV4))
		return headers_len + be16(inner->v4_total_len) == payload_len &&
		       is_whole(inner->v4_protocol, udp->checksum, pseudo);
	if (inner->eth.type == be16(TYPE_IPV6))
		return headers_len + IPV6_LEN + be16(inner->v6_payload_len) == payload_len &&
		       is_whole(inner->v6_next_header, udp->checksum, pseudo);
	return 0;
}

static __attribute__((always_inline)) int is_ours_v4(const u8 *at, const u8 *end, u64 packet_len)
{
	const struct ipv4 *ip = (const void *)at;
	const struct udp *udp = (const void *)(at + IPV4_LEN);
	u32 total_len;

	if ((const u8 *)(udp + 1) > end || !podwire_config.v4)
		return 0;
	/* Version 4, no options; not a fragment (neither offset nor "more"). */
	if (ip->version_ihl != 0x45 || (be16(ip->fragment) & 0x3fff) || ip->protocol != PROTOCOL_UDP)
		return 0;
	total_len = be16(ip->total_len);
	if (ip->destination != podwire_config.v4 || total_len > packet_len || total_len < IPV4_LEN)
		return 0;
	total_len -= IPV4_LEN;
	return is_tunnel(udp, end, total_len, pseudo_sum((const u16 *)&ip->source, 4, total_len));
}

static __attribute__((always_inline)) int is_ours_v6(const u8 *at, const u8 *end, u64 packet_len)
{
	const struct ipv6 *ip = (const void *)at;
	const struct udp *udp = (const void *)(at + IPV6_LEN);
	u32 payload_len;

	if ((const u8 *)(udp + 1) > end)
		return 0;
	if (at[0] >> 4 != 6 || ip->next_header != PROTOCOL_UDP)
		return 0;
	if (!(podwire_config.v6[0] | podwire_config.v6[1] | podwire_config.v6[2] | podwire_config.v6[3]))
		return 0;
	if (ip->destination[0] != podwire_config.v6[0] || ip->destination[1] != podwire_config.v6[1] ||
	    ip->destination[2] != podwire_config.v6[2] || ip->destination[3] != podwire_config.v6[3])
		return 0;
	payload_len = be16(ip->payload_len);
	if (IPV6_LEN + payload_len > packet_len)
		return 0;
	return is_tunnel(udp, end, payload_len, pseudo_sum((const u16 *)&ip->source, 16, payload_len));
}

SEC("xdp.frags")
int podwire_steer(struct xdp_md *ctx)
{
	const u8 *data = (const u8 *)(unsigned long)ctx->data;
	const u8 *end = (const u8 *)(unsigned long)ctx->data_end;
	const struct ethernet *eth = (const void *)data;
	u64 frame_len = bpf_xdp_get_buff_len(ctx);
	int ours = 0;

	if (data + ETH_LEN > end || frame_len < ETH_LEN || frame_len > podwire_config.frame_max)
		return XDP_PASS;
	if (eth->type == be16(TYPE_IPV4))
		ours = is_ours_v4(data + ETH_LEN, end, frame_len - ETH_LEN);
	else if (eth->type == be16(TYPE_IPV6))
		ours = is_ours_v6(data + ETH_LEN, end, frame_len - ETH_LEN);
	if (!ours)
		return XDP_PASS;
	return bpf_redirect_map(&podwire_socks, ctx->rx_queue_index, XDP_PASS);
}
