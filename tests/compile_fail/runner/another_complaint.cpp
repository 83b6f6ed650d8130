// SPDX-License-Identifier: BSL-1.0
// EXPECT: something that no compiler says
static_assert(sizeof(char) == 2, "a byte is a byte");
