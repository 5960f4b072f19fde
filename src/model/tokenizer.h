/* T5's SentencePiece unigram tokenizer (spec transformer 6), through the sentencepiece library (C++
 * behind spm.cc). */
#ifndef RINGREEL_TOKENIZER_H
#define RINGREEL_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

struct tokenizer;

int tokenizer_open(struct tokenizer **out,
                   const char *spiece_model_path); /* STATUS_INPUT for a bad model file */
void tokenizer_close(struct tokenizer *t);
/* Strips Unicode whitespace at both ends (official since 0.9.5), encodes, truncates to max_tokens -
 * 1 and appends </s>. ids [max_tokens]; *count >= 1. STATUS_INPUT if `text` is not valid UTF-8. No
 * padding: with T5's mask the pads change nothing (spec 5.3). Special tokens written in the text
 * (</s>, <pad>, <unk>, <extra_id_0> to <extra_id_99>) become their ids, and the stretches between
 * them are encoded one by one. */
int tokenizer_encode(const struct tokenizer *t, const char *text, int max_tokens, int32_t *ids,
                     int *count);

#endif
