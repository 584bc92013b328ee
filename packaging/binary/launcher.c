/* The head of `dist/imagine`: unpacks the Python tree behind it once, then becomes Python.

   The file is this program, a zstd stream, and a footer (see pack.py). The tree goes to
   <cache>/<id>, under another name until it is whole. A process that uses it holds a shared lock
   for as long as it lives; a tree that nobody has used for a month goes when a new one comes. */

#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>
#include <zstd.h>

#define ID 64
#define SPARE (64u << 20)            /* bytes to leave free on the disk */
#define UNUSED (30 * 24 * 60 * 60)   /* seconds after which a tree is worth its room no more */

struct footer {
    char magic[8];
    uint64_t offset, packed, unpacked;
    char id[ID];
};

static char self[PATH_MAX], reason[PATH_MAX + 256];

static void fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("imagine: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    exit(127);
}

/* Why a folder will not do; the last reason is shown if none does. */
static bool because(const char *folder, const char *why)
{
    snprintf(reason, sizeof reason, "%s: %s", folder, why);
    return false;
}

static void join(char *to, const char *folder, const char *name)
{
    if (snprintf(to, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
        fail("the path %s/%s is too long", folder, name);
}

/* ------------------------------------------------------------------------------ the stream */

static struct {
    int file;
    off_t next, end;
    ZSTD_DStream *decoder;
    ZSTD_inBuffer in;
    char chunk[1 << 17];
} stream;

static void take(void *to, size_t size)
{
    ZSTD_outBuffer out = {to, size, 0};
    while (out.pos < out.size) {
        if (stream.in.pos == stream.in.size) {
            off_t left = stream.end - stream.next;
            size_t want = left < (off_t)sizeof stream.chunk ? (size_t)left : sizeof stream.chunk;
            ssize_t got = want ? pread(stream.file, stream.chunk, want, stream.next) : 0;
            if (got <= 0)
                fail("%s is damaged; download it again", self);
            stream.next += got;
            stream.in = (ZSTD_inBuffer){stream.chunk, (size_t)got, 0};
        }
        if (ZSTD_isError(ZSTD_decompressStream(stream.decoder, &out, &stream.in)))
            fail("%s is damaged; download it again", self);
    }
}

static void take_file(const char *path, uint64_t size, mode_t mode)
{
    static char block[1 << 18];
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL, mode);
    if (file < 0)
        fail("%s: %s", path, strerror(errno));
    while (size > 0) {
        size_t part = size < sizeof block ? (size_t)size : sizeof block;
        take(block, part);
        for (size_t done = 0; done < part;) {
            ssize_t wrote = write(file, block + done, part - done);
            if (wrote < 0)
                fail("%s: %s", path, strerror(errno));
            done += (size_t)wrote;
        }
        size -= part;
    }
    if (close(file) != 0)
        fail("%s: %s", path, strerror(errno));
}

/* Records: a letter, the lengths of name and content, and both. 'e' is the last. */
static void unpack(int file, const struct footer *footer, const char *folder)
{
    stream.file = file;
    stream.next = (off_t)footer->offset;
    stream.end = stream.next + (off_t)footer->packed;
    stream.decoder = ZSTD_createDStream();
    for (;;) {
        char kind, name[PATH_MAX], path[PATH_MAX], target[PATH_MAX];
        uint16_t length;
        uint64_t size;
        take(&kind, 1);
        take(&length, sizeof length);
        take(&size, sizeof size);
        if (kind == 'e')
            break;
        if (length >= sizeof name || (kind == 'l' && size >= sizeof target))
            fail("%s is damaged; download it again", self);
        take(name, length);
        name[length] = 0;
        join(path, folder, name);
        if (kind == 'd') {
            if (mkdir(path, 0755) != 0)
                fail("%s: %s", path, strerror(errno));
        } else if (kind == 'l') {
            take(target, (size_t)size);
            target[size] = 0;
            if (symlink(target, path) != 0)
                fail("%s: %s", path, strerror(errno));
        } else {
            take_file(path, size, kind == 'x' ? 0755 : 0644);
        }
    }
    /* A loss of power must not leave a tree that only looks whole. */
    int opened = open(folder, O_RDONLY | O_DIRECTORY);
    if (opened < 0 || syncfs(opened) != 0)
        fail("%s: %s", folder, strerror(errno));
    close(opened);
}

/* ------------------------------------------------------------------------------- the cache */

static int remove_one(const char *path, const struct stat *info, int flag, struct FTW *walk)
{
    (void)info, (void)flag, (void)walk;
    return remove(path);
}

static void remove_tree(const char *path)
{
    nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

static bool make_folder(const char *path)
{
    char part[PATH_MAX];
    snprintf(part, sizeof part, "%s", path);
    for (char *slash = part + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        if (mkdir(part, 0700) != 0 && errno != EEXIST)
            break;
    }
    return mkdir(path, 0700) == 0 || errno == EEXIST || because(path, strerror(errno));
}

/* Whoever can write into the folder decides what we run. */
static bool trusted(const char *folder)
{
    struct stat info;
    if (stat(folder, &info) != 0)
        return because(folder, strerror(errno));
    if (!S_ISDIR(info.st_mode) || info.st_uid != geteuid() || (info.st_mode & 022))
        return because(folder, "it is not a folder that only you can write to");
    return true;
}

static bool has_room(const char *folder, uint64_t needed)
{
    struct statvfs disk;
    if (statvfs(folder, &disk) != 0)
        return because(folder, strerror(errno));
    if (disk.f_flag & ST_NOEXEC)
        return because(folder, "programs cannot be run there (noexec)");
    uint64_t left = (uint64_t)disk.f_bavail * disk.f_frsize;
    if (left >= needed + SPARE)
        return true;
    char why[128];
    snprintf(why, sizeof why, "%" PRIu64 " MB are needed, %" PRIu64 " are free",
             (needed + SPARE) >> 20, left >> 20);
    return because(folder, why);
}

/* A lock that lasts until this process, Python by then, ends. */
static int locked(const char *folder, const char *id, int how)
{
    char name[ID + 8], path[PATH_MAX];
    snprintf(name, sizeof name, "%.*s.lock", ID, id);
    join(path, folder, name);
    int file = open(path, O_RDWR | O_CREAT, 0600);
    if (file >= 0 && flock(file, how) != 0) {
        close(file);
        return -1;
    }
    return file;
}

static void remove_unused(const char *folder, const char *kept)
{
    DIR *listing = opendir(folder);
    struct dirent *entry;
    while (listing && (entry = readdir(listing))) {
        const char *name = entry->d_name;
        char lock[PATH_MAX], tree[PATH_MAX], part[PATH_MAX + 8];
        struct stat info;
        if (strlen(name) != ID + 5 || strcmp(name + ID, ".lock") || !strncmp(name, kept, ID))
            continue;
        join(lock, folder, name);
        if (stat(lock, &info) != 0 || time(NULL) - info.st_mtime < UNUSED)
            continue;
        int file = locked(folder, name, LOCK_EX | LOCK_NB);
        if (file < 0)
            continue;
        snprintf(tree, sizeof tree, "%.*s", (int)strlen(lock) - 5, lock);
        snprintf(part, sizeof part, "%s.part", tree);
        remove_tree(tree);
        remove_tree(part);
        unlink(lock);
        close(file);
    }
    if (listing)
        closedir(listing);
}

static bool is_whole(const char *tree)
{
    char python[PATH_MAX];
    join(python, tree, "bin/python3");
    return access(python, X_OK) == 0;
}

/* The tree in `folder`, unpacked if it must be; false if `folder` will not do. */
static bool ready(const char *folder, int file, const struct footer *footer, char *tree)
{
    char id[ID + 1] = {0}, part[PATH_MAX], name[ID + 8];
    memcpy(id, footer->id, ID);
    join(tree, folder, id);
    if (!make_folder(folder) || !trusted(folder))
        return false;
    if (!is_whole(tree) && !has_room(folder, footer->unpacked))
        return false;
    int lock = locked(folder, id, is_whole(tree) ? LOCK_SH : LOCK_EX);
    if (lock < 0)
        return is_whole(tree) || because(folder, strerror(errno)); /* it may be read-only */
    if (!is_whole(tree)) { /* nobody else has unpacked it while we waited */
        fprintf(stderr, "imagine: unpacking into %s, this once\n", folder);
        snprintf(name, sizeof name, "%s.part", id);
        join(part, folder, name);
        remove_tree(part); /* of one that was killed */
        if (mkdir(part, 0755) != 0)
            return because(part, strerror(errno));
        unpack(file, footer, part);
        if (rename(part, tree) != 0)
            fail("%s: %s", tree, strerror(errno));
        remove_unused(folder, id);
    }
    flock(lock, LOCK_SH);
    futimens(lock, NULL);
    return true;
}

static void find(int file, const struct footer *footer, char *tree)
{
    const char *given = getenv("IMAGINE_RUNTIME_DIR");
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char folder[PATH_MAX];
    if (given && *given) {
        if (ready(given, file, footer, tree))
            return;
        fail("cannot unpack to where IMAGINE_RUNTIME_DIR says: %s", reason);
    }
    if (cache && *cache == '/') {
        join(folder, cache, "imagine/runtime");
        if (ready(folder, file, footer, tree))
            return;
    }
    if (home && *home == '/') {
        join(folder, home, ".cache/imagine/runtime");
        if (ready(folder, file, footer, tree))
            return;
    }
    snprintf(folder, sizeof folder, "/var/tmp/imagine-%u", (unsigned)geteuid());
    if (ready(folder, file, footer, tree))
        return;
    fail("there is nowhere to unpack to; IMAGINE_RUNTIME_DIR may name a folder (%s)", reason);
}

/* ------------------------------------------------------------------------------------ main */

static void read_footer(int file, struct footer *footer)
{
    struct stat info;
    off_t size = (off_t)sizeof *footer;
    if (fstat(file, &info) != 0 || info.st_size < size ||
        pread(file, footer, sizeof *footer, info.st_size - size) != size ||
        memcmp(footer->magic, "IMAGINE1", 8) != 0 ||
        footer->offset + footer->packed + sizeof *footer != (uint64_t)info.st_size)
        fail("%s is incomplete; download it again", self);
}

int main(int count, char **words)
{
    struct footer footer;
    char tree[PATH_MAX], python[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0)
        fail("/proc is not there, and it is needed to find this file");
    int file = open(self, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        fail("%s: %s", self, strerror(errno));
    read_footer(file, &footer);
    find(file, &footer, tree);
    join(python, tree, "bin/python3");
    char **command = calloc((size_t)count + 4, sizeof *command);
    if (!command)
        fail("%s", strerror(errno));
    /* -I: what the host has set for its own Python, or has lying about, is none of ours. */
    char *fixed[] = {python, "-I", "-m", "imagine_core"};
    memcpy(command, fixed, sizeof fixed);
    for (int i = 1; i < count; i++)
        command[i + 3] = words[i];
    setenv("IMAGINE_EXECUTABLE", self, 1);
    execv(python, command);
    fail("%s: %s", python, strerror(errno));
}
