/* The measuring tools of scripts/bench that must be fast. Built with `cc -O2`.
 *
 *   tools blast ADDRESS PORT SECONDS [DESTINATIONS]  sends 64-byte UDP packets as fast as possible, to DESTINATIONS
 *                                                    consecutive addresses in turn; prints the microseconds a packet
 *   tools send ADDRESS PORT SECONDS HZ               sends UDP packets at a steady pace
 *   tools last PORT SECONDS                          receives until SIGTERM; prints the wall-clock time
 *                                                    of the last packet
 *   tools echo SECONDS HZ ADDRESS...                 ICMP echo to each address in turn; prints a line for
 *                                                    each answer: the address's index, the RTT in ms
 *   tools edt PATH FIRST COUNT MS...                 pins an eBPF program at PATH that delays packets by departure
 *                                                    times: COUNT addresses from FIRST, with the delays MS in turn
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <netinet/in.h>
#include <netinet/ip_icmp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { SIZE = 64, BATCH = 512 };

static void die(const char *what) {
    perror(what);
    exit(1);
}

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static double now(void) { return seconds(CLOCK_MONOTONIC); }

static struct sockaddr_in address(const char *text, int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    if (inet_pton(AF_INET, text, &a.sin_addr) != 1) {
        fprintf(stderr, "%s is no IPv4 address\n", text);
        exit(2);
    }
    return a;
}

static int udp(void) {
    int s = socket(AF_INET, SOCK_DGRAM, 0), size = 8 << 20;
    if (s < 0) die("socket");
    setsockopt(s, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof size);
    return s;
}

static int blast(char **argv, int argc) {
    struct sockaddr_in to = address(argv[0], atoi(argv[1])), each[BATCH];
    double lasts = atof(argv[2]), begin, t;
    int destinations = argc > 3 ? atoi(argv[3]) : 1, s = udp();
    static char payload[SIZE];
    struct iovec part = {payload, SIZE};
    struct mmsghdr messages[BATCH] = {0};
    long sent = 0, next = 0;
    /* With one destination, the route is looked up once. */
    if (destinations == 1 && connect(s, (void *)&to, sizeof to)) die("connect");
    for (int i = 0; i < BATCH; i++) {
        each[i] = to;
        messages[i].msg_hdr.msg_iov = &part;
        messages[i].msg_hdr.msg_iovlen = 1;
        if (destinations == 1) continue;
        messages[i].msg_hdr.msg_name = &each[i];
        messages[i].msg_hdr.msg_namelen = sizeof each[i];
    }
    for (begin = t = now(); t - begin < lasts; t = now()) {
        for (int i = 0; destinations > 1 && i < BATCH; i++)
            each[i].sin_addr.s_addr = htonl(ntohl(to.sin_addr.s_addr) + next++ % destinations);
        int n = sendmmsg(s, messages, BATCH, 0);
        if (n > 0) sent += n;
        else if (errno == EAGAIN || errno == ENOBUFS) usleep(100);
        else die("sendmmsg");
    }
    printf("%.4f\n", (t - begin) * 1e6 / (sent ? sent : 1));
    return 0;
}

static int send_paced(char **argv) {
    struct sockaddr_in to = address(argv[0], atoi(argv[1]));
    double end = now() + atof(argv[2]);
    int s = udp(), pause = 1e6 / atof(argv[3]);
    char payload[SIZE] = {0};
    for (; now() < end; usleep(pause)) sendto(s, payload, SIZE, 0, (void *)&to, sizeof to);
    return 0;
}

/* The time at which the kernel received a message. */
static double stamp(struct msghdr *message) {
    struct timespec t = {0};
    for (struct cmsghdr *h = CMSG_FIRSTHDR(message); h; h = CMSG_NXTHDR(message, h))
        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SO_TIMESTAMPNS) memcpy(&t, CMSG_DATA(h), sizeof t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void stamp_packets(int s, double timeout) {
    struct timeval t = {(long)timeout, (timeout - (long)timeout) * 1e6};
    int on = 1;
    setsockopt(s, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on);
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t);
}

static volatile sig_atomic_t ended;

static void end_soon(int signal) {
    (void)signal;
    ended = 1;
}

static int last(char **argv) {
    struct sockaddr_in own = address("0.0.0.0", atoi(argv[0]));
    double end = now() + atof(argv[1]), latest = 0;
    int s = udp();
    stamp_packets(s, 0.2);
    sigaction(SIGTERM, &(struct sigaction){.sa_handler = end_soon}, NULL);
    if (bind(s, (void *)&own, sizeof own)) die("bind");
    while (now() < end && !ended) {
        char payload[SIZE], control[256];
        struct iovec part = {payload, SIZE};
        struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
        if (recvmsg(s, &m, 0) >= 0) latest = stamp(&m);
    }
    if (latest) printf("%.6f\n", latest);
    return 0;
}

static uint16_t checksum(const void *data, int length) {
    const uint16_t *words = data;
    uint32_t sum = 0;
    for (int i = 0; i < length / 2; i++) sum += words[i];
    sum = (sum >> 16) + (sum & 0xffff);
    return ~(sum + (sum >> 16));
}

/* Echo requests, one at a time, so that no request waits for another one. */
static int echo(char **argv, int argc) {
    double end = now() + atof(argv[0]), every = 1 / atof(argv[1]), next = now();
    int s = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), addresses = argc - 2;
    if (s < 0) die("socket");
    stamp_packets(s, 1);
    for (uint16_t sequence = 1; now() < end; sequence++) {
        struct sockaddr_in to = address(argv[2 + sequence % addresses], 0);
        struct { struct icmphdr header; char payload[48]; } request = {.header = {.type = ICMP_ECHO}};
        request.header.un.echo.id = htons(getpid());
        request.header.un.echo.sequence = htons(sequence);
        request.header.checksum = checksum(&request, sizeof request);
        double pause = next - now();
        if (pause > 0) usleep(pause * 1e6);
        next = now() + every;
        double sent = seconds(CLOCK_REALTIME);
        if (sendto(s, &request, sizeof request, 0, (void *)&to, sizeof to) < 0) die("sendto");
        for (;;) {
            char packet[256], control[256];
            struct iovec part = {packet, sizeof packet};
            struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
            if (recvmsg(s, &m, 0) < 0) break; /* lost */
            struct icmphdr *reply = (void *)(packet + 20);
            if (reply->type != ICMP_ECHOREPLY || reply->un.echo.id != request.header.un.echo.id) continue;
            if (reply->un.echo.sequence != request.header.un.echo.sequence) continue;
            printf("%d %.4f\n", sequence % addresses, (stamp(&m) - sent) * 1e3);
            break;
        }
    }
    return 0;
}

static int bpf(int command, union bpf_attr *attributes) {
    int result = syscall(SYS_bpf, command, attributes, sizeof *attributes);
    if (result < 0) die("bpf");
    return result;
}

#define INSN(c, d, s, o, i) ((struct bpf_insn){.code = (c), .dst_reg = (d), .src_reg = (s), .off = (o), .imm = (i)})

/* The program: look up the destination's delay; write the departure time, by which the qdisc fq sends the packet. */
static int edt(char **argv, int argc) {
    uint32_t first = ntohl(address(argv[1], 0).sin_addr.s_addr), count = atoi(argv[2]);
    union bpf_attr map = {.map_type = BPF_MAP_TYPE_HASH, .key_size = 4, .value_size = 8, .max_entries = count};
    int fd = bpf(BPF_MAP_CREATE, &map);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t key = htonl(first + i);
        uint64_t delay = atof(argv[3 + i % (argc - 3)]) * 1e6;
        union bpf_attr entry = {.map_fd = fd, .key = (uintptr_t)&key, .value = (uintptr_t)&delay};
        bpf(BPF_MAP_UPDATE_ELEM, &entry);
    }
    const int tstamp = offsetof(struct __sk_buff, tstamp), protocol = offsetof(struct __sk_buff, protocol);
    struct bpf_insn program[] = {
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, 6, 1, 0, 0),                     /* r6 = the packet */
        INSN(BPF_LDX | BPF_MEM | BPF_W, 0, 6, protocol, 0),
        INSN(BPF_JMP | BPF_JNE | BPF_K, 0, 0, 17, htons(ETH_P_IP)),        /* no IPv4: pass */
        INSN(BPF_ALU64 | BPF_MOV | BPF_K, 2, 0, 0, 14 + 16),               /* the destination's offset */
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, 3, 10, 0, 0),
        INSN(BPF_ALU64 | BPF_ADD | BPF_K, 3, 0, 0, -4),
        INSN(BPF_ALU64 | BPF_MOV | BPF_K, 4, 0, 0, 4),
        INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_skb_load_bytes),
        INSN(BPF_LD | BPF_DW | BPF_IMM, 1, BPF_PSEUDO_MAP_FD, 0, fd),
        INSN(0, 0, 0, 0, 0),
        INSN(BPF_ALU64 | BPF_MOV | BPF_X, 2, 10, 0, 0),
        INSN(BPF_ALU64 | BPF_ADD | BPF_K, 2, 0, 0, -4),
        INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
        INSN(BPF_JMP | BPF_JEQ | BPF_K, 0, 0, 6, 0),                       /* an unknown destination: pass */
        INSN(BPF_LDX | BPF_MEM | BPF_DW, 7, 0, 0, 0),                      /* r7 = the delay */
        INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_ktime_get_ns),
        INSN(BPF_ALU64 | BPF_ADD | BPF_X, 7, 0, 0, 0),
        INSN(BPF_STX | BPF_MEM | BPF_DW, 6, 7, tstamp, 0),
        INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0),
        INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
        INSN(BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0),
        INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
    };
    static char log[65536];
    union bpf_attr load = {.prog_type = BPF_PROG_TYPE_SCHED_CLS, .insns = (uintptr_t)program,
                           .insn_cnt = sizeof program / sizeof *program, .license = (uintptr_t) "GPL",
                           .log_buf = (uintptr_t)log, .log_size = sizeof log, .log_level = 1};
    int loaded = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof load);
    if (loaded < 0) {
        fputs(log, stderr);
        die("the verifier");
    }
    union bpf_attr pin = {.pathname = (uintptr_t)argv[0], .bpf_fd = loaded};
    bpf(BPF_OBJ_PIN, &pin);
    return 0;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    if (argc >= 5 && !strcmp(argv[1], "blast")) return blast(argv + 2, argc - 2);
    if (argc == 6 && !strcmp(argv[1], "send")) return send_paced(argv + 2);
    if (argc == 4 && !strcmp(argv[1], "last")) return last(argv + 2);
    if (argc >= 5 && !strcmp(argv[1], "echo")) return echo(argv + 2, argc - 2);
    if (argc >= 6 && !strcmp(argv[1], "edt")) return edt(argv + 2, argc - 2);
    fputs("usage: see the first lines of tools.c\n", stderr);
    return 2;
}
