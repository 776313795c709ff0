/* What the XDP programs share: the few layouts of linux/bpf.h they read, the map of sockets, and where licence and source
 * are told. No kernel or libbpf headers are needed.
 *
 * Before it is included, QUEUES_MAX says how many receive queues the program serves.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define SEC(name) __attribute__((section(name), used))

/* enum bpf_map_type, enum xdp_action, struct xdp_md, and the number of a helper, which is not for GPL only. */
#define BPF_MAP_TYPE_XSKMAP 17
#define XDP_DROP 1
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

#define be16(value) __builtin_bswap16(value)

/* One AF_XDP socket a receive queue. */
struct {
	int (*type)[BPF_MAP_TYPE_XSKMAP];
	int (*max_entries)[QUEUES_MAX];
	u32 *key;
	u32 *value;
} podwire_socks SEC(".maps");

const char podwire_licence[] SEC("license") = "Apache-2.0";
/* A test holds it against this file and the program's. */
const char podwire_source[] SEC("source_sha256") = SOURCE_SHA256;
