/* The program of a veth-xdp port, on the switch's end of the pair.
 *
 * Everything the pod sends goes to the AF_XDP socket of the queue it came in on. What finds no socket is dropped, and
 * never passed: this end lies in the node's namespace, whose stack would take what no spoof guard has seen, and answer
 * ARP for the node's addresses. So a pod whose switch is gone is cut off, as one on a TAP is, until the next podwired
 * gives the map a socket again; therefore it is attached without a bpf link, and stays when its process goes.
 *
 * Its few layouts are in xdp.h. `make bpf` compiles it into redirect.bpf.o, which is committed;
 * vswitch/src/sys/bpf/redirect.rs loads it.
 */

/* Our end of the pair has one. */
#define QUEUES_MAX 1
#include "xdp.h"

SEC("xdp")
int podwire_redir(struct xdp_md *ctx)
{
	return bpf_redirect_map(&podwire_socks, ctx->rx_queue_index, XDP_DROP);
}
