/*
 * A libnvidia-ml.so.1 for tests. It has the functions that roundhouse-nvml calls, with the names, arguments and error
 * numbers of NVIDIA's nvml.h, and takes its answers from a text file beside it (its own path with ".conf" at the end).
 * Without that file it has eight healthy GPUs.
 *
 * Lines of the file; GPU is an index, -1 for calls about none, or *; CALL is the name of a function without nvml and
 * without its version's number:
 *
 *   value GPU KEY NUMBER      what a function answers; the keys are where number() is called below
 *   text GPU KEY TEXT         the same for a string
 *   fail CALL GPU ERROR       that call returns the error number of nvmlReturn_t
 *   hang CALL GPU             that call never returns
 *   crash CALL GPU [SIGNAL]   that call dies of a signal, SIGSEGV without one
 *   hang-nth N, crash-nth N   the same for the Nth call of any kind, from 1
 *   hang-load, crash-load     the same while the library is being loaded
 *   program PATH              nvmlInit runs this program, as the real one runs nvidia-modprobe, and logs the errno
 *   flood N                   nvmlInit writes N KiB to standard output
 *   log                       append "CALL GPU" for each call to a file beside the library, its path with ".log" at the end
 *
 * Once nvmlInit has failed, any other call crashes: the real library's do.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
	OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, TOO_SMALL = 7, VERSION_MISMATCH = 25,
	MAX_GPUS = 80, MAX_LINKS = 40,
};

typedef struct handle { int gpu; int mig; } *handle;

static char conf[1 << 20], self[4096];
static struct handle gpus[MAX_GPUS], migs[MAX_GPUS][8];
static int initialised, calls;

/* line is the next line of the file, after the one given, that begins with the word. */
static const char *line(const char *after, const char *word) {
	const char *p = after ? after : conf;
	size_t n = strlen(word);
	while (p && *p) {
		const char *next = strchr(p, '\n');
		if (strncmp(p, word, n) == 0 && (p[n] == ' ' || p[n] == '\n' || p[n] == 0) && p != after)
			return p;
		p = next ? next + 1 : NULL;
	}
	return NULL;
}

static int is_gpu(const char *pattern, int gpu) { return strcmp(pattern, "*") == 0 || atoi(pattern) == gpu; }

/* number is what the file says of a key, the last line that fits, or the default. */
static long long number(int gpu, const char *key, long long otherwise) {
	char g[16], k[64];
	long long v;
	for (const char *p = NULL; (p = line(p, "value"));)
		if (sscanf(p, "value %15s %63s %lli", g, k, &v) == 3 && is_gpu(g, gpu) && strcmp(k, key) == 0)
			otherwise = v;
	return otherwise;
}

static const char *string(int gpu, const char *key, const char *otherwise) {
	static char v[256];
	char g[16], k[64], t[256];
	snprintf(v, sizeof v, "%s", otherwise);
	for (const char *p = NULL; (p = line(p, "text"));)
		if (sscanf(p, "text %15s %63s %255[^\n]", g, k, t) == 3 && is_gpu(g, gpu) && strcmp(k, key) == 0)
			snprintf(v, sizeof v, "%s", t);
	return v;
}

static void note(const char *what, int n) {
	char path[sizeof self + 8];
	if (!line(NULL, "log"))
		return;
	snprintf(path, sizeof path, "%s.log", self);
	FILE *f = fopen(path, "a");
	if (f) {
		fprintf(f, "%s %d\n", what, n);
		fclose(f);
	}
}

static void hang(void) {
	for (;;)
		pause();
}

static void die(int sig) {
	if (sig == SIGSEGV)
		*(volatile int *)8 = 0;
	raise(sig);
}

__attribute__((constructor)) static void load(void) {
	Dl_info info;
	char path[sizeof self + 8];
	if (!dladdr((void *)load, &info))
		abort();
	snprintf(self, sizeof self, "%s", info.dli_fname);
	snprintf(path, sizeof path, "%s.conf", self);
	FILE *f = fopen(path, "r");
	if (f) {
		conf[fread(conf, 1, sizeof conf - 1, f)] = 0;
		fclose(f);
	}
	if (line(NULL, "hang-load"))
		hang();
	if (line(NULL, "crash-load"))
		die(SIGSEGV);
}

/* enter is the start of every call: it does what the file says is to happen in it. */
static int enter(const char *call, int gpu) {
	char c[96], g[16];
	int n;
	const char *p;
	note(call, gpu);
	if (strcmp(call, "Init") != 0 && !initialised)
		die(SIGSEGV);
	calls++;
	if ((p = line(NULL, "hang-nth")) && atoi(p + 9) == calls)
		hang();
	if ((p = line(NULL, "crash-nth")) && atoi(p + 10) == calls)
		die(SIGSEGV);
	for (p = NULL; (p = line(p, "hang"));)
		if (sscanf(p, "hang %95s %15s", c, g) == 2 && strcmp(c, call) == 0 && is_gpu(g, gpu))
			hang();
	for (p = NULL; (p = line(p, "crash"));) {
		n = SIGSEGV;
		if (sscanf(p, "crash %95s %15s %d", c, g, &n) >= 2 && strcmp(c, call) == 0 && is_gpu(g, gpu))
			die(n);
	}
	for (p = NULL; (p = line(p, "fail"));)
		if (sscanf(p, "fail %95s %15s %d", c, g, &n) == 3 && strcmp(c, call) == 0 && is_gpu(g, gpu))
			return n;
	return OK;
}

/* ENTER returns what the file makes the call return; a call about what is no GPU is an invalid argument. */
#define ENTER(call, gpu) do { int r_ = enter(call, gpu); if (r_) return r_; } while (0)
#define ENTER_GPU(call) do { if (!h) return INVALID; ENTER(call, h->gpu); } while (0)

/* NUMBER is a function that answers one number of a type. */
#define NUMBER(call, type, key, otherwise) \
	int nvmlDeviceGet##call(handle h, type *out) { \
		ENTER_GPU("DeviceGet" #call); \
		long long v_ = number(h->gpu, key, otherwise); \
		if (v_ < 0) return NOT_SUPPORTED; \
		*out = (type)v_; \
		return OK; \
	}
#define TEXT(call, key, otherwise) \
	int nvmlDeviceGet##call(handle h, char *out, unsigned size) { \
		ENTER_GPU("DeviceGet" #call); \
		snprintf(out, size, "%s", string(h->gpu, key, otherwise)); \
		return OK; \
	}

static void run_program(const char *path) {
	pid_t pid = fork();
	if (pid == 0) {
		execl(path, path, (char *)NULL);
		_exit(errno);
	}
	int status = 0;
	waitpid(pid, &status, 0);
	note("program", WEXITSTATUS(status));
}

int nvmlInit_v2(void) {
	char path[4096];
	const char *p = line(NULL, "program");
	if (p && sscanf(p, "program %4095s", path) == 1)
		run_program(path);
	p = line(NULL, "flood");
	for (long n = p ? atol(p + 6) : 0; n > 0; n--) {
		char kib[1024];
		memset(kib, 'x', sizeof kib);
		if (write(1, kib, sizeof kib) < 0)
			break;
	}
	ENTER("Init", -1);
	initialised = 1;
	return OK;
}

int nvmlSystemGetDriverVersion(char *out, unsigned size) {
	ENTER("SystemGetDriverVersion", -1);
	snprintf(out, size, "%s", string(-1, "driver", "570.133.20"));
	return OK;
}

int nvmlSystemGetNVMLVersion(char *out, unsigned size) {
	ENTER("SystemGetNVMLVersion", -1);
	snprintf(out, size, "%s", string(-1, "nvml", "12.570.133.20"));
	return OK;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
	ENTER("DeviceGetCount", -1);
	*count = (unsigned)number(-1, "gpus", 8);
	return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, handle *out) {
	ENTER("DeviceGetHandleByIndex", (int)index);
	if (index >= number(-1, "gpus", 8) || index >= MAX_GPUS)
		return INVALID;
	gpus[index].gpu = (int)index;
	*out = &gpus[index];
	return OK;
}

struct pci { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; };

static void fill_pci(struct pci *p, unsigned domain, unsigned bus) {
	memset(p, 0, sizeof *p);
	p->domain = domain;
	p->bus = bus;
	snprintf(p->bus_id, sizeof p->bus_id, "%08X:%02X:00.0", domain, bus);
}

int nvmlDeviceGetPciInfo_v3(handle h, struct pci *out) {
	ENTER_GPU("DeviceGetPciInfo");
	fill_pci(out, (unsigned)number(h->gpu, "domain", 0), (unsigned)number(h->gpu, "bus", 0x18 + h->gpu * 0x10));
	return OK;
}

int nvmlDeviceGetUUID(handle h, char *out, unsigned size) {
	ENTER_GPU("DeviceGetUUID");
	if (h->mig)
		snprintf(out, size, "MIG-%08x-0000-4000-8000-%012x", h->gpu, h->mig);
	else
		snprintf(out, size, "%s", string(h->gpu, "uuid", ""));
	if (!*out)
		snprintf(out, size, "GPU-00000001-0000-4000-8000-%012x", h->gpu);
	return OK;
}

TEXT(Name, "name", "NVIDIA H100 80GB HBM3")
TEXT(VbiosVersion, "vbios", "96.00.A5.00.01")
TEXT(Serial, "serial", "1652923000001")
NUMBER(Architecture, unsigned, "architecture", 9)
NUMBER(ModuleId, unsigned, "module", h->gpu + 1)
NUMBER(PersistenceMode, unsigned, "persistence", 1)
NUMBER(CurrPcieLinkWidth, unsigned, "width", 16)
NUMBER(MaxPcieLinkWidth, unsigned, "max-width", 16)
NUMBER(CurrPcieLinkGeneration, unsigned, "generation", 5)
NUMBER(MaxPcieLinkGeneration, unsigned, "max-generation", 5)
NUMBER(PcieReplayCounter, unsigned, "pcie-replays", 0)
NUMBER(CurrentClocksEventReasons, unsigned long long, "reasons", 1)
NUMBER(CurrentClocksThrottleReasons, unsigned long long, "reasons", 1)
NUMBER(PerformanceState, unsigned, "pstate", 0)
NUMBER(PowerUsage, unsigned, "power", 70000)
NUMBER(EnforcedPowerLimit, unsigned, "power-limit", 700000)
NUMBER(MaxMigDeviceCount, unsigned, "max-mig", 7)

int nvmlDeviceGetUtilizationRates(handle h, unsigned out[2]) {
	ENTER_GPU("DeviceGetUtilizationRates");
	out[0] = (unsigned)number(h->gpu, "utilization", 0);
	out[1] = 0;
	return OK;
}

int nvmlDeviceGetTemperature(handle h, unsigned sensor, unsigned *out) {
	ENTER_GPU("DeviceGetTemperature");
	if (sensor != 0)
		return INVALID;
	*out = (unsigned)number(h->gpu, "temperature", 32);
	return OK;
}

int nvmlDeviceGetTemperatureThreshold(handle h, unsigned kind, unsigned *out) {
	ENTER_GPU("DeviceGetTemperatureThreshold");
	if (kind > 1)
		return INVALID;
	*out = (unsigned)number(h->gpu, kind == 0 ? "shutdown" : "slowdown", kind == 0 ? 92 : 87);
	return OK;
}

int nvmlDeviceGetEccMode(handle h, unsigned *now, unsigned *pending) {
	ENTER_GPU("DeviceGetEccMode");
	*now = *pending = (unsigned)number(h->gpu, "ecc", 1);
	return OK;
}

int nvmlDeviceGetTotalEccErrors(handle h, unsigned kind, unsigned counter, unsigned long long *out) {
	static const char *keys[2][2] = {{"ecc-vol-corr", "ecc-agg-corr"}, {"ecc-vol-unc", "ecc-agg-unc"}};
	ENTER_GPU("DeviceGetTotalEccErrors");
	if (kind > 1 || counter > 1)
		return INVALID;
	*out = (unsigned long long)number(h->gpu, keys[kind][counter], 0);
	return OK;
}

struct sram {
	unsigned version;
	unsigned long long agg_parity, agg_secded, agg_corrected, vol_parity, vol_secded, vol_corrected, buckets[5];
	unsigned threshold;
};

int nvmlDeviceGetSramEccErrorStatus(handle h, struct sram *out) {
	ENTER_GPU("DeviceGetSramEccErrorStatus");
	if (out->version != (sizeof *out | 1u << 24))
		return VERSION_MISMATCH;
	out->agg_parity = (unsigned long long)number(h->gpu, "sram-agg-parity", 0);
	out->agg_secded = (unsigned long long)number(h->gpu, "sram-agg-secded", 0);
	out->vol_parity = (unsigned long long)number(h->gpu, "sram-vol-parity", 0);
	out->vol_secded = (unsigned long long)number(h->gpu, "sram-vol-secded", 0);
	out->threshold = (unsigned)number(h->gpu, "sram-threshold", 0);
	return OK;
}

int nvmlDeviceGetRemappedRows(handle h, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
	ENTER_GPU("DeviceGetRemappedRows");
	*corrected = (unsigned)number(h->gpu, "remap-corr", 0);
	*uncorrected = (unsigned)number(h->gpu, "remap-unc", 0);
	*pending = (unsigned)number(h->gpu, "remap-pending", 0);
	*failed = (unsigned)number(h->gpu, "remap-failed", 0);
	return OK;
}

struct process { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; };

int nvmlDeviceGetComputeRunningProcesses_v3(handle h, unsigned *count, struct process *out) {
	unsigned have = (unsigned)number(h->gpu, "processes", 0), room = *count;
	ENTER_GPU("DeviceGetComputeRunningProcesses");
	*count = have;
	if (have > room)
		return TOO_SMALL;
	for (unsigned i = 0; i < have; i++)
		out[i] = (struct process){.pid = 1000 + i};
	return OK;
}

static int links(int gpu) { return (int)number(gpu, "links", 18); }

struct field {
	unsigned id, scope;
	long long timestamp, latency;
	unsigned type, result;
	union { double d; unsigned ui; unsigned long long ull; long long sll; } value;
};

/* fields this library knows: the ID in nvml.h, the key, and what is answered without one. */
static const struct { unsigned id; const char *key; long long otherwise; int per_link; } fields[] = {
	{29, "retired-sbe", -1, 0}, {30, "retired-dbe", -1, 0}, {31, "retired-pending", -1, 0},
	{91, "links", 18, 0}, {161, "link-replays", 0, 1}, {162, "link-recoveries", 0, 1}, {163, "link-crc", 0, 1},
	{230, "recovery", 0, 0},
};

static void answer(int gpu, struct field *f) {
	char key[64];
	f->result = NOT_SUPPORTED;
	for (unsigned i = 0; i < sizeof fields / sizeof fields[0]; i++) {
		if (fields[i].id != f->id)
			continue;
		if (fields[i].per_link && (int)f->scope >= links(gpu)) {
			f->result = INVALID;
			return;
		}
		long long v = number(gpu, fields[i].key, fields[i].otherwise);
		if (fields[i].per_link) {
			snprintf(key, sizeof key, "%s.%u", fields[i].key, f->scope);
			v = number(gpu, key, v);
		}
		if (v < 0)
			return;
		f->result = OK;
		f->type = (unsigned)number(gpu, "field-type", fields[i].per_link ? 3 : 1);
		f->value.ull = 0;
		if (f->type == 1)
			f->value.ui = (unsigned)v;
		else
			f->value.ull = (unsigned long long)v;
	}
}

int nvmlDeviceGetFieldValues(handle h, int count, struct field *values) {
	ENTER_GPU("DeviceGetFieldValues");
	for (int i = 0; i < count; i++)
		answer(h->gpu, &values[i]);
	return OK;
}

static long long of_link(int gpu, const char *what, unsigned link, long long otherwise) {
	char key[64];
	snprintf(key, sizeof key, "%s.%u", what, link);
	return number(gpu, key, number(gpu, what, otherwise));
}

int nvmlDeviceGetNvLinkState(handle h, unsigned link, unsigned *active) {
	ENTER_GPU("DeviceGetNvLinkState");
	if ((int)link >= links(h->gpu))
		return INVALID;
	long long v = of_link(h->gpu, "link-active", link, 1);
	if (v < 0)
		return NOT_SUPPORTED;
	*active = (unsigned)v;
	return OK;
}

int nvmlDeviceGetNvLinkRemoteDeviceType(handle h, unsigned link, unsigned *type) {
	ENTER_GPU("DeviceGetNvLinkRemoteDeviceType");
	*type = (unsigned)of_link(h->gpu, "link-remote-type", link, 2);
	return OK;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(handle h, unsigned link, struct pci *out) {
	ENTER_GPU("DeviceGetNvLinkRemotePciInfo");
	fill_pci(out, 0, (unsigned)of_link(h->gpu, "link-remote-bus", link, 5 + link % 4));
	return OK;
}

struct fabric { unsigned version; unsigned char cluster[16]; unsigned status, clique; unsigned char state; unsigned health; };
struct old_fabric { unsigned char cluster[16]; unsigned status, clique; unsigned char state; };

int nvmlDeviceGetGpuFabricInfoV(handle h, struct fabric *out) {
	ENTER_GPU("DeviceGetGpuFabricInfoV");
	if (out->version != (sizeof *out | 2u << 24))
		return VERSION_MISMATCH;
	memset(out->cluster, (int)number(h->gpu, "fabric-cluster", 0), sizeof out->cluster);
	out->status = (unsigned)number(h->gpu, "fabric-status", 0);
	out->clique = (unsigned)number(h->gpu, "fabric-clique", 0);
	out->state = (unsigned char)number(h->gpu, "fabric-state", 3);
	out->health = (unsigned)number(h->gpu, "fabric-health", 0);
	return OK;
}

int nvmlDeviceGetGpuFabricInfo(handle h, struct old_fabric *out) {
	ENTER_GPU("DeviceGetGpuFabricInfo");
	memset(out->cluster, (int)number(h->gpu, "fabric-cluster", 0), sizeof out->cluster);
	out->status = (unsigned)number(h->gpu, "fabric-status", 0);
	out->clique = (unsigned)number(h->gpu, "fabric-clique", 0);
	out->state = (unsigned char)number(h->gpu, "fabric-state", 3);
	return OK;
}

int nvmlDeviceGetMigMode(handle h, unsigned *now, unsigned *pending) {
	ENTER_GPU("DeviceGetMigMode");
	*now = (unsigned)number(h->gpu, "mig", 0);
	*pending = (unsigned)number(h->gpu, "mig-pending", *now);
	return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(handle h, unsigned index, handle *out) {
	ENTER_GPU("DeviceGetMigDeviceHandleByIndex");
	if (index >= number(h->gpu, "mig-devices", 0) || index >= 8)
		return NOT_FOUND;
	migs[h->gpu][index] = (struct handle){h->gpu, (int)index + 1};
	*out = &migs[h->gpu][index];
	return OK;
}

int nvmlDeviceGetGpuInstanceId(handle h, unsigned *out) {
	ENTER_GPU("DeviceGetGpuInstanceId");
	*out = (unsigned)h->mig + 6;
	return OK;
}

int nvmlDeviceGetComputeInstanceId(handle h, unsigned *out) {
	ENTER_GPU("DeviceGetComputeInstanceId");
	*out = 0;
	return OK;
}
