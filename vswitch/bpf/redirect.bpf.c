/* The program of a veth-xdp port, on the switch's end of the pair.
 *
 * Everything the pod sends goes to the AF_XDP socket of the queue it came in on. What finds no socket is dropped, and
 * never passed: this end lies in the node's namespace, whose stack would take what no spoof guard has seen, and answer
 * ARP for the node's addresses. So a pod whose switch is gone is cut off, as one on a TAP is, until the next podwired
 * gives the map a socket again; therefore it is attached without a bpf link, and stays when its process goes.
 *
 * Needs no kernel or libbpf headers; see steer.bpf.c. `make bpf` compiles it into redirect.bpf.o, which is committed;
 * vswitch/src/sys/bpf/redirect.rs loads it.
 */

typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))

/* linux/bpf.h: enum bpf_map_type, enum xdp_action, struct xdp_md, and the number of a helper, which is not for GPL only. */
#define BPF_MAP_TYPE_XSKMAP 17
#define XDP_DROP 1
struct xdp_md {
	u32 data;
	u32 data_end;
	u32 data_meta;
	u32 ingress_ifindex;
	u32 rx_queue_index;
	u32 egress_ifindex;
};
static long (*const bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

/* One AF_XDP socket a receive queue, of which our end has one. */
#define QUEUES_MAX 1
struct {
	int (*type)[BPF_MAP_TYPE_XSKMAP];
	int (*max_entries)[QUEUES_MAX];
	u32 *key;
	u32 *value;
} podwire_socks SEC(".maps");

SEC("xdp")
int podwire_redir(struct xdp_md *ctx)
{
	return bpf_redirect_map(&podwire_socks, ctx->rx_queue_index, XDP_DROP);
}

const char podwire_licence[] SEC("license") = "Apache-2.0";

/* Which source this object was made of: a test compares it with the file beside it. */
#ifndef SOURCE_SHA256
#define SOURCE_SHA256 "unknown"
#endif
const char podwire_source[] SEC("source_sha256") = SOURCE_SHA256;
