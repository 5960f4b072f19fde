# ringreel: probe, build, demo, test, bench, info, install.
#
#   make demo    on a fresh Debian machine: installs what is missing, builds, renders with 4 MPI ranks
#   make test    installs what is missing, builds and runs every test (SANITIZE=1: with ASan and UBSan)
#   make         builds ./ringreel
#   make race    runs the CUDA kernels' tests under ThreadSanitizer, on the emulator (tests/emulation/README.md)
#   make info    what was probed and found
#   make bench   arithmetic against the measured peak of the core, seconds per denoise step, what several ranks and encoders gain
#   make soak    renders 3840x2176 and ten minutes for real: a quarter of an hour, 8 GiB (SOAK=hd: only one of them)
#   make gpu-check   on a machine with a GPU: every kernel against the CPU, renders, timings, one table (docs/GPU.md)
#   make gpu-bundle  packs what that needs where nothing but the CUDA toolkit is: out/gpu-bundle.tar.xz
#   make oracle  regenerates the stored reference outputs (developers; needs PyTorch and the reference, tools/README.md)

SANITIZE ?= 0
CUDA     ?= auto # 1: with the CUDA compiler, 0: without, auto: with it where it is found
CUDA_HOME  ?= /usr/local/cuda
CUDA_ARCHS ?= 80 90a 100 # compute capabilities to compile for; of the last one also PTX
PREFIX   ?= /usr/local
PYTHON   ?= python3 # of `make oracle`; needs PyTorch
BUILD    := build$(if $(filter 1,$(SANITIZE)),-sanitize)
PROGRAM  := $(if $(filter 1,$(SANITIZE)),$(BUILD)/ringreel,ringreel)

PACKAGES := ompi-c yaml-0.1 jansson libavformat libavcodec libavutil libswscale
ifeq ($(origin CC),default)
  CC := gcc
endif
ifeq ($(origin CXX),default)
  CXX := g++
endif
Q := $(if $(V),,@) # V=1 shows whole commands
WARN     := -Wall -Wextra -Wpointer-arith -Werror
CPPFLAGS := -I. -Isrc -D_GNU_SOURCE -MMD -MP $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
OPT      := -O3 -g -fopenmp -fno-math-errno -fno-strict-aliasing
ifeq ($(SANITIZE),1)
  SAN      := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
  OPT      := -O2 -g -fopenmp -fno-math-errno -fno-strict-aliasing $(SAN)
endif
CFLAGS   := -std=gnu11 $(OPT) -ffp-contract=off $(WARN)
CXXFLAGS := -std=c++17 $(OPT) $(WARN)
LDFLAGS   = -rdynamic # backends in libraries call back
LDLIBS    = $(shell pkg-config --libs $(PACKAGES) 2>/dev/null) -lsentencepiece -ldl -lm -lstdc++ -lpthread

# kernels/cpu/*_simd.c is compiled once per instruction set and chosen at run time; nothing else is tuned to one CPU.
ISAS         := generic avx2 avx512 avx512_bf16
ISA_generic  :=
ISA_avx2     := -mavx2 -mfma
ISA_avx512   := -mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma -mprefer-vector-width=512
ISA_avx512_bf16 := $(ISA_avx512) -mavx512bf16

SIMD     := $(wildcard kernels/cpu/*_simd.c)
SOURCES  := $(filter-out src/main.c,$(wildcard src/*.c src/*/*.c)) $(filter-out $(SIMD),$(wildcard kernels/*.c kernels/cpu/*.c))
SHIMS    := $(wildcard src/*/*.cc)
OBJECTS  := $(SOURCES:%.c=$(BUILD)/%.o) $(SHIMS:%.cc=$(BUILD)/%.o) \
            $(foreach i,$(ISAS),$(SIMD:%.c=$(BUILD)/%.$(i).o))
LIBRARY  := $(BUILD)/libringreel.a

all: $(PROGRAM)

$(PROGRAM): $(BUILD)/src/main.o $(LIBRARY)
	@echo "link $@"
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(LIBRARY): $(OBJECTS)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "cc   $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -c -o $@ $<

$(BUILD)/%.o: %.cc
	@mkdir -p $(@D)
	@echo "c++  $<"
	$(Q)$(CXX) $(CPPFLAGS) $(CXXFLAGS) -c -o $@ $<

define simd_rule
$(BUILD)/%.$(1).o: %.c
	@mkdir -p $$(@D)
	@echo "cc   $$< ($(1))"
	$$(Q)$$(CC) $$(CPPFLAGS) $$(CFLAGS) -ffp-contract=fast $(ISA_$(1)) -DRR_ISA=$(1) -c -o $$@ $$<
endef
$(foreach i,$(ISAS),$(eval $(call simd_rule,$(i))))

# ---- CUDA ----------------------------------------------------------------------------------------------------------
# Every .cu is compiled twice: by nvcc for CUDA_ARCHS, and, wherever the CUDA headers are, by g++ for the emulator.

CUDA_HEADERS := $(wildcard $(CUDA_HOME)/include/cuda_runtime.h)
CUDA_FOUND   := $(and $(CUDA_HEADERS),$(wildcard $(CUDA_HOME)/bin/nvcc))
ifeq ($(strip $(CUDA)),1)
  $(if $(CUDA_FOUND),,$(error CUDA=1, but $(CUDA_HOME) lacks bin/nvcc or include/cuda_runtime.h (CUDA_HOME says where to look)))
else ifneq ($(strip $(CUDA)),auto)
  $(if $(filter 0,$(CUDA)),,$(error CUDA=$(strip $(CUDA)): allowed are auto, 1 and 0))
  CUDA_HEADERS :=
  CUDA_FOUND   :=
endif

CUDA_SOURCES := $(wildcard kernels/cuda/*.cu)
CUDA_TESTS   := $(wildcard tests/emulation/test_*.cu)
GPU_TESTS    := $(filter-out %/test_planted.cu,$(CUDA_TESTS)) # the mistakes in that one are for the emulator
comma        := ,
GENCODE      := $(foreach a,$(CUDA_ARCHS),-gencode arch=compute_$(a)$(comma)code=sm_$(a)) \
                $(foreach a,$(lastword $(CUDA_ARCHS)),-gencode arch=compute_$(a)$(comma)code=compute_$(a))
NVCCFLAGS    := -std=c++17 -O3 -lineinfo --Werror all-warnings -Xcompiler -Wall,-Wextra,-fPIC -I. -Isrc $(GENCODE)

# In the race build kernels are instrumented and the emulator is not: it says itself who is ordered after whom.
# -fno-strict-aliasing: kernels look at their memory through other types, as the CUDA compiler allows.
# -Wno-psabi: kernels take tensor maps by value.
EMULATION_FLAGS  = -std=c++17 $(filter-out -fopenmp,$(OPT)) -fPIC -ffp-contract=off $(WARN) -Wno-unknown-pragmas -Wno-psabi \
                   -DCUDA_EMULATION -I. -Isrc -Itests/emulation -isystem $(CUDA_HOME)/include -MMD -MP
EMULATOR        := $(patsubst %,$(BUILD)/emulation/%.o,async block fibers grid mma modes shared tma warp wgmma)
EMULATION_TESTS := $(patsubst %.cu,$(BUILD)/%,$(CUDA_TESTS))
CPU_KERNELS     := $(filter $(BUILD)/kernels/% $(BUILD)/src/base/%,$(OBJECTS)) # what CUDA kernels are compared with

$(BUILD)/emulation/%.o: tests/emulation/%.cpp
	@mkdir -p $(@D)
	@echo "c++  $<"
	$(Q)$(CXX) $(EMULATION_FLAGS) $(if $(RACE),-DEMULATION_TSAN) -c -o $@ $<

$(BUILD)/emulation/%.o: %.cu
	@mkdir -p $(@D)
	@echo "c++  $< (emulated)"
	$(Q)$(CXX) $(EMULATION_FLAGS) $(if $(RACE),-fsanitize=thread -DRACE_CHECK) -x c++ -c -o $@ $<

$(EMULATION_TESTS): $(BUILD)/%: $(BUILD)/emulation/%.o $(CUDA_SOURCES:%.cu=$(BUILD)/emulation/%.o) $(EMULATOR) $(CPU_KERNELS)
	@mkdir -p $(@D)
	@echo "link $@"
	$(Q)$(CXX) $(EMULATION_FLAGS) $(if $(RACE),-fsanitize=thread) -fopenmp -o $@ $^ -ldl

# Changes when CUDA_ARCHS does, and is then newer than what was compiled for others.
$(BUILD)/cuda/archs: FORCE
	@mkdir -p $(@D)
	@echo $(CUDA_ARCHS) | cmp -s - $@ || echo $(CUDA_ARCHS) > $@
FORCE:

$(BUILD)/cuda/%.o: %.cu $(BUILD)/cuda/archs
	@mkdir -p $(@D)
	@echo "nvcc $<"
	$(Q)$(CUDA_HOME)/bin/nvcc $(NVCCFLAGS) -MMD -MP -c -o $@ $<

ifneq ($(CUDA_HEADERS),)
include tests/emulation/runtime/rules.mk
endif

race: # a build folder of its own
	@$(if $(CUDA_HEADERS),$(MAKE) --no-print-directory BUILD=build-race RACE=1 OPT='-O1 -g -fopenmp -fno-strict-aliasing' race-tests,\
	    echo 'race: skipped: no CUDA headers (make CUDA_HOME=... says where they are)')
race-tests: $(EMULATION_TESTS)
	@BUILD=$(BUILD) EMULATION=1 tests/run.sh emulation/test_

# The same tests for a GPU: build/cuda/tests/emulation/test_*
gpu-tests: $(GPU_TESTS:%.cu=$(BUILD)/cuda/%)
$(BUILD)/cuda/tests/emulation/%: $(BUILD)/cuda/tests/emulation/%.o $(CUDA_SOURCES:%.cu=$(BUILD)/cuda/%.o) $(CPU_KERNELS)
	@echo "link $@"
	$(Q)$(CUDA_HOME)/bin/nvcc $(GENCODE) -Xcompiler -fopenmp -o $@ $^ -ldl

# ---- tests ---------------------------------------------------------------------------------------------------------

TEST_SOURCES := $(wildcard tests/unit/test_*.c tests/parity/test_*.c tests/semantic/test_*.c)
TESTS        := $(TEST_SOURCES:%.c=$(BUILD)/%) $(patsubst %.c,$(BUILD)/%,$(wildcard tests/mpi/*.c))
TEST_HELPERS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TEST_HELPERS) $(LIBRARY)
	@echo "link $@"
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka
.SECONDARY: # objects of tests are kept

# ---- the CUDA backend ----------------------------------------------------------------------------------------------
# libringreel_cuda.so, which the program opens when it starts: for GPUs beside it, and for the emulator.

CUDA_HOST     := $(wildcard kernels/cuda/*.c)
CUDA_LIBRARY  := libringreel_cuda.so
CUDA_EMULATED := $(BUILD)/emulation/$(CUDA_LIBRARY)

$(BUILD)/cuda/%.o: %.c
	@mkdir -p $(@D)
	@echo "cc   $<"
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -isystem $(CUDA_HOME)/include -c -o $@ $<

$(CUDA_LIBRARY): $(CUDA_SOURCES:%.cu=$(BUILD)/cuda/%.o) $(CUDA_HOST:%.c=$(BUILD)/cuda/%.o)
	@echo "link $@"
	$(Q)$(CXX) -shared -o $@ $^ -L$(CUDA_HOME)/lib64 -lcudart -lcublasLt -Wl,-rpath,$(CUDA_HOME)/lib64

$(CUDA_EMULATED): $(CUDA_SOURCES:%.cu=$(BUILD)/emulation/%.o) $(CUDA_HOST:%.c=$(BUILD)/cuda/%.o) $(EMULATED)
	@echo "link $@"
	$(Q)$(CXX) $(SAN) -shared -o $@ $(filter %.o,$^) -L$(EMULATION_LIB) -lcudart -lcublasLt -Wl,-rpath,$(abspath $(EMULATION_LIB))

ifneq ($(and $(CUDA_FOUND),$(filter 0,$(SANITIZE))),)
all: $(CUDA_LIBRARY)
check: $(GPU_TESTS:%.cu=$(BUILD)/cuda/%.o)
endif
ifneq ($(CUDA_HEADERS),)
check: $(EMULATION_TESTS) $(CUDA_EMULATED)
endif

# `test` installs first and then starts make anew, so that a fresh machine's probes see what was installed.
test:
	@launch/install-deps.sh
	@$(MAKE) --no-print-directory check

check: $(PROGRAM) $(TESTS)
	@BUILD=$(BUILD) RINGREEL=./$(PROGRAM) SANITIZE=$(SANITIZE) EMULATION=$(if $(CUDA_HEADERS),1,0) tests/run.sh

soak: $(PROGRAM) $(TESTS)
	@BUILD=$(BUILD) RINGREEL=./$(PROGRAM) tests/soak.sh $(SOAK)

demo:
	@launch/install-deps.sh
	@$(MAKE) --no-print-directory all
	@launch/demo.sh

info: $(PROGRAM)
	@CUDA_HOME=$(if $(CUDA_FOUND),$(CUDA_HOME)) CUDA_ARCHS='$(strip $(CUDA_ARCHS))' launch/info.sh ./$(PROGRAM)

$(BUILD)/bench: $(BUILD)/tests/bench.o $(BUILD)/tests/bench_model.o $(TEST_HELPERS) $(LIBRARY)
	@echo "link $@"
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka
$(BUILD)/bench_shares $(BUILD)/bench_encoders: $(BUILD)/%: $(BUILD)/tests/%.o $(TEST_HELPERS) $(LIBRARY)
	@echo "link $@"
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

# What launch/gpu-check.sh runs, beside the program. It asks for them itself, or unpacks them.
GPU_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/gpu/*.c))
gpu-programs: $(PROGRAM) $(CUDA_LIBRARY) $(GPU_PROGRAMS) gpu-tests
gpu-check:
	@BUILD=$(BUILD) CUDA_HOME=$(CUDA_HOME) launch/gpu-check.sh
gpu-bundle: gpu-programs
	@BUILD=$(BUILD) CUDA_HOME=$(CUDA_HOME) launch/gpu-bundle.sh
ifneq ($(CUDA_HEADERS),)
check: $(GPU_PROGRAMS)
endif

bench: $(PROGRAM) $(BUILD)/bench $(BUILD)/bench_shares $(BUILD)/bench_encoders
	@$(BUILD)/bench
	@BUILD=$(BUILD) tests/bench_ranks.sh

oracle:
	$(PYTHON) tools/oracle.py --all

install: all
	install -Dm755 ringreel $(DESTDIR)$(PREFIX)/bin/ringreel
	install -Dm755 launch/ringreel-mpi $(DESTDIR)$(PREFIX)/bin/ringreel-mpi
	$(if $(CUDA_FOUND),install -Dm755 $(CUDA_LIBRARY) $(DESTDIR)$(PREFIX)/lib/$(CUDA_LIBRARY))

format: # developers: needs clang-format
	clang-format -i $(wildcard src/*.c src/*/*.[ch] src/*/*.cc kernels/*.[ch] kernels/*/*.[ch] kernels/*/*.cu tests/*.[ch] tests/*/*.[ch] \
	    tests/emulation/*.cu tests/emulation/*.cpp tests/emulation/runtime/*.cpp)

clean:
	rm -rf build build-sanitize build-race build-gpu-bundle ringreel $(CUDA_LIBRARY) out

-include $(shell find build build-sanitize build-race -name '*.d' 2>/dev/null)

.PHONY: all format test check soak race race-tests gpu-tests gpu-programs gpu-check gpu-bundle demo info bench oracle install clean FORCE
