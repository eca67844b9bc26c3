/* Plays the part of a CRaC JDK, call by call (tests/e2e/tests/crac_jdk.rs): it loads an engine, has itself
 * checkpointed in the middle of its work, or becomes what an image holds. The tables are written down here
 * a second time, from the facts, so that a slip in ours is found.
 *
 *   jvm LIBRARY help
 *   jvm LIBRARY checkpoint IMAGE DIR [key=value…]
 *   jvm LIBRARY restore IMAGE DATA MASK [key=value…]     MASK: bits of the CPU; "other" as arch where 0
 */
#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct conf conf;

struct extension {
    const char *name;
    size_t size;
};

struct api {
    conf *(*create_conf)(void);
    void (*destroy_conf)(conf *);
    int (*checkpoint)(conf *);
    int (*restore)(conf *);
    bool (*can_configure)(conf *, const char *key);
    bool (*configure)(conf *, const char *key, const char *value);
    const struct extension *(*get_extension)(const char *name, size_t size);
};

struct restore_data {
    struct extension header;
    bool (*set)(conf *, const void *, size_t);
    size_t (*get)(conf *, void *, size_t);
};

enum comparison { EQUALS, SUBSET, SUPERSET };

struct constraints {
    struct extension header;
    bool (*set_label)(conf *, const char *name, const char *value);
    bool (*set_bitmap)(conf *, const char *name, const unsigned char *value, size_t size);
    bool (*require_label)(conf *, const char *name, const char *value);
    bool (*require_bitmap)(conf *, const char *name, const unsigned char *value, size_t size,
                           enum comparison);
    bool (*is_failed)(conf *, const char *name);
    size_t (*get_failed_bitmap)(conf *, const char *name, unsigned char *value, size_t size);
};

struct score {
    struct extension header;
    bool (*set)(conf *, const char *metric, double value);
};

struct user_data {
    struct extension header;
    bool (*set)(conf *, const char *name, const void *data, size_t size);
    void *(*load)(conf *);
    bool (*look_up)(void *, const char *name, const void **data, size_t *size);
    void (*destroy)(void *);
};

struct option {
    const char *key;
    unsigned flags;
    const char *type, *standard, *text;
};

struct description {
    struct extension header;
    const char *(*identity)(conf *);
    const char *(*description)(conf *);
    const char *(*documentation)(conf *);
    const char *const *(*keys)(conf *);
    const struct extension *const *(*extensions)(conf *);
    const struct option *(*options)(conf *);
};

struct availability {
    struct extension header;
    int (*status)(conf *);
};

#define CHECK(truth)                                                                               \
    do {                                                                                           \
        if (!(truth)) {                                                                            \
            printf("line %d: not so: %s\n", __LINE__, #truth);                                     \
            fflush(stdout);                                                                        \
            exit(99);                                                                              \
        }                                                                                          \
    } while (0)

static const struct api *api;

static const void *extension(const char *name, size_t size) {
    const struct extension *found = api->get_extension(name, size);
    CHECK(found && strcmp(found->name, name) == 0 && found->size >= size);
    CHECK(!api->get_extension(name, found->size + 1));
    return found;
}

static const struct api *load(const char *path) {
    void *library = dlopen(path, RTLD_NOW);
    if (!library) {
        printf("%s\n", dlerror());
        exit(98);
    }
    const struct api *(*entry)(int, size_t);
    *(void **)&entry = dlsym(library, "crlib_api");
    CHECK(entry);
    CHECK(!entry(1, sizeof *api) && !entry(3, sizeof *api));
    CHECK(!entry(2, sizeof *api + sizeof(void *)));
    const struct api *found = entry(2, sizeof *api);
    CHECK(found && found == entry(2, sizeof *api));
    return found;
}

static void configure(conf *conf, char **words) {
    for (; *words; words++) {
        char *value = strchr(*words, '=');
        *value++ = 0;
        CHECK(api->can_configure(conf, *words));
        CHECK(api->configure(conf, *words, value));
    }
}

static void help(void) {
    conf *conf = api->create_conf();
    const struct description *about = extension("description", sizeof *about);
    CHECK(!api->can_configure(conf, "no_such_key"));
    CHECK(!api->configure(conf, "no_such_key", "x"));
    CHECK(!api->configure(conf, "keep_running", "perhaps"));
    CHECK(!api->get_extension("no such extension", 0));
    printf("%s\n%s\n%s", about->identity(conf), about->description(conf),
           about->documentation(conf));
    for (const char *const *key = about->keys(conf); *key; key++)
        CHECK(api->can_configure(conf, *key));
    for (const struct option *option = about->options(conf); option->key; option++)
        printf("option %s %u <%s> (%s) %s\n", option->key, option->flags, option->type,
               option->standard, option->text);
    for (const struct extension *const *known = about->extensions(conf); *known; known++)
        printf("extension %s\n", (*known)->name);
    const struct availability *available = extension("checkpointable data", sizeof *available);
    printf("status %d\n", available->status(conf));
    api->destroy_conf(conf);
    api->destroy_conf(NULL);
}

/* What runs beside the thread that calls, as the JVM's threads do. */
static volatile unsigned long turns[2];

static void *work(void *turn) {
    for (;;) {
        ++*(volatile unsigned long *)turn;
        usleep(1000);
    }
    return NULL;
}

static int descriptors(void) {
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        count++;
    closedir(dir);
    return count;
}

/* Two threads that go on, no descriptor more than before. */
static void is_well(int open) {
    for (int i = 0; i < 2; i++)
        for (unsigned long before = turns[i]; turns[i] == before;)
            usleep(1000);
    CHECK(descriptors() == open);
}

static void wait_for(const char *dir, const char *name) {
    char path[8192];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    while (access(path, F_OK) != 0)
        usleep(10 * 1000);
}

static const unsigned char features[] = {0x07, 0x80};

static void checkpoint(const char *image, const char *dir, char **words) {
    pthread_t thread;
    for (int i = 0; i < 2; i++)
        CHECK(pthread_create(&thread, NULL, work, (void *)&turns[i]) == 0);
    conf *conf = api->create_conf();
    configure(conf, words);
    const struct restore_data *data = extension("restore data", sizeof *data);
    const struct constraints *image_says = extension("image constraints", sizeof *image_says);
    const struct score *score = extension("image score", sizeof *score);
    const struct user_data *user = extension("user data", sizeof *user);
    CHECK(image_says->set_label(conf, "cpu.arch", "amd64"));
    CHECK(!image_says->set_label(conf, "cpu.arch", "aarch64"));
    CHECK(image_says->set_bitmap(conf, "cpu.features", features, sizeof features));
    CHECK(user->set(conf, "blob", "\0\xff", 2));
    int open = descriptors();
    for (int round = 1;; round++) {
        char path[4096], text[64] = "";
        snprintf(path, sizeof path, "%s-%d", image, round);
        /* As newer ones do: the directory, and in it the name of the engine. */
        mkdir(path, 0700);
        CHECK(api->configure(conf, "image_location", path));
        strcat(path, "/engine");
        FILE *file = fopen(path, "w");
        if (file) {
            fputs("tubengine", file);
            fclose(file);
        }
        CHECK(score->set(conf, "vm.uptime", 1.5));
        /* Of one attempt only. */
        if (round == 1)
            CHECK(score->set(conf, "vm.first", 1));
        printf("ready %d\n", round);
        fflush(stdout);
        snprintf(path, sizeof path, "go-%d", round);
        wait_for(dir, path);
        int result = api->checkpoint(conf);
        size_t size = data->get(conf, text, sizeof text - 1);
        /* A JDK reads no more than a number, and is told how much there is. */
        int number;
        CHECK(data->get(conf, &number, sizeof number) == size);
        CHECK(size < sizeof number || memcmp(&number, text, sizeof number) == 0);
        printf("round %d: %d, %zu bytes [%s]\n", round, result, size, text);
        fflush(stdout);
        is_well(open);
        printf("well %d\n", round);
        fflush(stdout);
    }
}

static int restore(const char *image, const char *bytes, int mask, char **words) {
    conf *conf = api->create_conf();
    CHECK(api->configure(conf, "image_location", image));
    CHECK(api->configure(conf, "direct_map", "true"));
    configure(conf, words);
    const struct restore_data *data = extension("restore data", sizeof *data);
    const struct constraints *required = extension("image constraints", sizeof *required);
    const struct user_data *user = extension("user data", sizeof *user);
    void *stored = user->load(conf);
    const void *blob;
    size_t size;
    if (stored) {
        CHECK(user->look_up(stored, "blob", &blob, &size) && size == 2);
        CHECK(memcmp(blob, "\0\xff", 2) == 0);
        CHECK(!user->look_up(stored, "no such data", &blob, &size));
        user->destroy(stored);
    }
    unsigned char bits[3] = {(unsigned char)mask, 0x80, 0};
    CHECK(required->require_label(conf, "cpu.arch", mask ? "amd64" : "other"));
    CHECK(required->require_bitmap(conf, "cpu.features", bits, sizeof bits, SUBSET));
    /* As with -XX:CheckCPUFeatures=exact. */
    CHECK(required->require_bitmap(conf, "cpu.features", features, sizeof features, EQUALS));
    CHECK(!required->is_failed(conf, "cpu.arch"));
    if (*bytes)
        CHECK(data->set(conf, bytes, strlen(bytes)));
    int result = api->restore(conf);
    printf("restore: %d\n", result);
    if (required->is_failed(conf, "cpu.arch"))
        puts("failed cpu.arch");
    if (required->is_failed(conf, "cpu.features")) {
        size = required->get_failed_bitmap(conf, "cpu.features", bits, 1);
        printf("failed cpu.features: %zu bytes, %02x\n", size, bits[0]);
    }
    api->destroy_conf(conf);
    return 1;
}

int main(int count, char **words) {
    if (count < 3)
        return 2;
    api = load(words[1]);
    if (strcmp(words[2], "checkpoint") == 0)
        checkpoint(words[3], words[4], words + 5);
    else if (strcmp(words[2], "restore") == 0)
        return restore(words[3], words[4], atoi(words[5]), words + 6);
    else
        help();
    return 0;
}
