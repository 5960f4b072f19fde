# ringreel: probe, build, demo, test, bench, info, install.
#
#   make demo    on a fresh Debian machine: installs what is missing, builds, renders with 4 MPI ranks
#   make test    installs what is missing, builds and runs every test (SANITIZE=1: with ASan and UBSan)
#   make         builds ./ringreel
#   make info    what was probed and found
#   make bench   arithmetic against the measured peak of the core, seconds per denoise step, what several ranks gain
#   make soak    renders 3840x2176 and ten minutes for real: a quarter of an hour, 8 GiB (SOAK=hd: only one of them)
#   make oracle  regenerates the stored reference outputs (developers; needs PyTorch and the reference, tools/README.md)

SANITIZE ?= 0
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
WARN     := -Wall -Wextra -Werror
CPPFLAGS := -I. -Isrc -D_GNU_SOURCE -MMD -MP $(shell pkg-config --cflags $(PACKAGES) 2>/dev/null)
OPT      := -O3 -g -fopenmp -fno-math-errno -fno-strict-aliasing
ifeq ($(SANITIZE),1)
  SAN      := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
  OPT      := -O1 -g -fopenmp -fno-math-errno -fno-strict-aliasing $(SAN)
endif
CFLAGS   := -std=gnu11 $(OPT) -ffp-contract=off $(WARN)
CXXFLAGS := -std=c++17 $(OPT) $(WARN)
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
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(LDLIBS)

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

# ---- tests ---------------------------------------------------------------------------------------------------------

TEST_SOURCES := $(wildcard tests/unit/test_*.c tests/parity/test_*.c tests/semantic/test_*.c)
TESTS        := $(TEST_SOURCES:%.c=$(BUILD)/%) $(patsubst %.c,$(BUILD)/%,$(wildcard tests/mpi/*.c))
TEST_HELPERS := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TEST_HELPERS) $(LIBRARY)
	@echo "link $@"
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(LDLIBS) -lcmocka
.SECONDARY: # objects of tests are kept

ifneq ($(wildcard /usr/local/cuda/include/cuda_runtime_api.h),)
  include tests/emulation/runtime/rules.mk
endif

# `test` installs first and then starts make anew, so that a fresh machine's probes see what was installed.
test:
	@launch/install-deps.sh
	@$(MAKE) --no-print-directory check

check: $(PROGRAM) $(TESTS)
	@BUILD=$(BUILD) RINGREEL=./$(PROGRAM) SANITIZE=$(SANITIZE) tests/run.sh

soak: $(PROGRAM) $(TESTS)
	@BUILD=$(BUILD) RINGREEL=./$(PROGRAM) tests/soak.sh $(SOAK)

demo:
	@launch/install-deps.sh
	@$(MAKE) --no-print-directory all
	@launch/demo.sh

info: $(PROGRAM)
	@launch/info.sh ./$(PROGRAM)

$(BUILD)/bench: $(BUILD)/tests/bench.o $(BUILD)/tests/bench_model.o $(TEST_HELPERS) $(LIBRARY)
	@echo "link $@"
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(LDLIBS) -lcmocka
$(BUILD)/bench_shares: $(BUILD)/tests/bench_shares.o $(TEST_HELPERS) $(LIBRARY)
	@echo "link $@"
	$(Q)$(CC) $(CFLAGS) -o $@ $^ $(LDLIBS) -lcmocka
bench: $(PROGRAM) $(BUILD)/bench $(BUILD)/bench_shares
	@$(BUILD)/bench
	@BUILD=$(BUILD) tests/bench_ranks.sh

oracle:
	$(PYTHON) tools/oracle.py --all

install: all
	install -Dm755 ringreel $(DESTDIR)$(PREFIX)/bin/ringreel
	install -Dm755 launch/ringreel-mpi $(DESTDIR)$(PREFIX)/bin/ringreel-mpi

format: # developers: needs clang-format
	clang-format -i $(wildcard src/*.c src/*/*.[ch] src/*/*.cc kernels/*.[ch] kernels/cpu/*.[ch] tests/*.[ch] tests/*/*.[ch])

clean:
	rm -rf build build-sanitize ringreel out

-include $(shell find build build-sanitize -name '*.d' 2>/dev/null)

.PHONY: all format test check soak demo info bench oracle install clean
