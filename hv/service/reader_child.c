/*
 * The sealed process of reader.c. It is sealed before it reads the first byte: from then on it
 * has its socket, memory and the processor, for a few seconds, and nothing else.
 */
#include <errno.h>
#include <libxml/parser.h>
#include <linux/capability.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hv/base/strbuf.h"
#include "hv/service/service.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SHADOWED 1                     /* terabytes of address space are reserved */
#else
#define SHADOWED 0
#endif

static const struct { int what; rlim_t most; } limits[] = {
    {RLIMIT_CPU, 2}, {RLIMIT_AS, SHADOWED ? RLIM_INFINITY : (rlim_t)1 << 30}, {RLIMIT_CORE, 0}, {RLIMIT_NPROC, 0},
    {RLIMIT_FSIZE, 0}, {RLIMIT_MSGQUEUE, 0},
};

static int no_capabilities(void)
{
    struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
    const struct __user_cap_data_struct none[2] = {0};
    return syscall(SYS_capset, &h, none) < 0 ? -errno : 0;
}

/* Whatever else is asked for ends the process: nothing in it has a reason to. */
static int filter(int fd)
{
    static const int any[] = {SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(exit),
                              SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigprocmask), SCMP_SYS(futex),
                              SCMP_SYS(getrandom), SCMP_SYS(clock_gettime), SCMP_SYS(gettid), SCMP_SYS(getpid)};
    scmp_filter_ctx f = seccomp_init(SCMP_ACT_KILL_PROCESS);
    int r = f ? 0 : -ENOMEM;
    for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(any); i++)
        r = seccomp_rule_add(f, SCMP_ACT_ALLOW, any[i], 0);
    if (r == 0)
        r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(read), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)fd));
    if (r == 0)
        r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(write), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)fd));
    if (r == 0)                        /* an assertion's last words */
        r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(write), 1, SCMP_A0(SCMP_CMP_EQ, STDERR_FILENO));
    if (r == 0)
        r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1, SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
    /* Memory of its own that nothing can be run in. */
    if (r == 0)
        r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 2, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0),
                             SCMP_A3(SCMP_CMP_MASKED_EQ, MAP_ANONYMOUS, MAP_ANONYMOUS));
    if (r == 0)
        r = seccomp_rule_add(f, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1, SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
    if (r == 0)
        r = seccomp_load(f);
    seccomp_release(f);
    return r;
}

/* Anything that one of its layers refuses ends it: no document is read in less. */
static int seal(int fd)
{
    int r = no_capabilities();
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(limits); i++)
        if (setrlimit(limits[i].what, &(struct rlimit){limits[i].most, limits[i].most}) < 0)
            r = -errno;
    if (r == 0 && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        r = -errno;
    return r == 0 ? filter(fd) : r;
}

static int read_text(int fd, struct strbuf *text)
{
    char buf[65536];
    for (;;) {
        ssize_t n = read(fd, buf, sizeof(buf));
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n == 0)
            return text->err ? -ENOMEM : 0;
        if (n > 0 && text->len + (size_t)n > SETTINGS_DOCUMENT_MAX + 1)
            return -E2BIG;
        if (n > 0)
            strbuf_add(text, buf, (size_t)n);
    }
}

int reader_child(int fd)
{
    struct hv_error e = {0};
    strbuf_auto text = {0};
    json_t *doc = NULL;
    xmlInitParser();
    json_object_seed(0);               /* reads /dev/urandom */
    int r = seal(fd);
    if (r < 0) {
        hv_fail_errno(&e, -r, "the document", "it can only be read in a sealed process, and this host refuses one");
    } else if ((r = read_text(fd, &text)) < 0) {
        if (r == -E2BIG)
            hv_fail(&e, HV_USAGE, "the document", "more than %zu MiB", SETTINGS_DOCUMENT_MAX >> 20);
        else
            hv_fail_errno(&e, -r, "the document", "cannot be read");
    } else {
        r = settings_xml_document(text.buf ? text.buf : "", text.len, &doc, &e);
    }
    if (r < 0)
        doc = json_pack("{s:{s:s s:s s:s s:s}}", "error", "code", hv_code_word(e.code), "object", e.object, "message", e.message,
                        "hint", e.hint);
    /* A document's words in a message may have been cut inside a character. */
    if (!doc)
        doc = json_pack("{s:{s:s s:s s:s}}", "error", "code", "usage", "object", "the document", "message", "it is no settings");
    hv_autofree char *answer = doc ? json_dumps(doc, JSON_COMPACT) : NULL;
    r = answer ? hv_write_all(fd, answer, strlen(answer)) : -ENOMEM;
    _exit(r < 0);
}
