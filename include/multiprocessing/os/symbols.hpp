// SPDX-License-Identifier: BSL-1.0
//
// The names of functions by their addresses, out of the symbol tables of the files they were loaded
// from: those of a program that is not stripped too, of which the loader knows (and dladdr tells)
// only what is exported.
#pragma once

#include <multiprocessing/os/fd.hpp>
#include <multiprocessing/os/fork.hpp>
#include <multiprocessing/os/module.hpp>

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>

namespace multiprocessing::os {

/// A place in code, as far as it is known.
struct Symbol {
    std::string module;           // the file; empty when nothing is loaded at the address
    std::uintptr_t offset = 0;    // what `addr2line -e module` takes
    std::string function;         // as the linker has it; empty when nothing names it
    std::uintptr_t distance = 0;  // from its beginning
};

/// The functions that a file names. None where it cannot be read or is no ELF file of this machine.
class SymbolTable {
public:
    explicit SymbolTable(const char* path);
    /// Fills in `function` and `distance`, if anything is at `offset`.
    void find(Symbol& symbol) const;

private:
    std::vector<ElfW(Sym)> symbols_;
    std::vector<char> names_;
};

/// Looks up one address after the other, and reads each file once.
class Symbols {
public:
    [[nodiscard]] Symbol find(std::uintptr_t address);

private:
    std::map<std::string, SymbolTable> tables_;
};

// -------------------------------------------------------------------------------------------------

namespace symbols {

/// `count` objects at `offset` of the file; none when it does not have them all.
template <class T>
[[nodiscard]] std::vector<T> read(const Fd& file, std::uint64_t offset, std::uint64_t count) {
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) return {};
    const auto length = static_cast<std::uint64_t>(status.st_size);
    if (offset > length || count > (length - offset) / sizeof(T)) return {};
    std::vector<T> read(count);
    const auto got = retry_on_signal([&] {
        return ::pread(file.get(), read.data(), count * sizeof(T), static_cast<off_t>(offset));
    });
    if (got < 0 || static_cast<std::uint64_t>(got) != count * sizeof(T)) read.clear();
    return read;
}

struct Search {
    std::uintptr_t address;
    std::uintptr_t base = 0;
    const char* module = nullptr;  // "" is the program
};

inline int look_in_module(dl_phdr_info* info, std::size_t, void* into) {
    auto& search = *static_cast<Search*>(into);
    for (int i = 0; i < info->dlpi_phnum; ++i) {
        const auto& segment = info->dlpi_phdr[i];
        const std::uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
        if (segment.p_type != PT_LOAD || search.address - begin >= segment.p_memsz) continue;
        search.base = info->dlpi_addr;
        search.module = info->dlpi_name;
        return 1;
    }
    return 0;
}

}  // namespace symbols

inline SymbolTable::SymbolTable(const char* path) {
    const Fd file(::open(path, O_RDONLY | O_CLOEXEC));
    if (!file) return;
    const auto header = symbols::read<ElfW(Ehdr)>(file, 0, 1);
    if (header.empty() ||
        std::string_view(reinterpret_cast<const char*>(header[0].e_ident), SELFMAG) != ELFMAG ||
        header[0].e_shentsize != sizeof(ElfW(Shdr)))
        return;
    const auto sections = symbols::read<ElfW(Shdr)>(file, header[0].e_shoff, header[0].e_shnum);
    const ElfW(Shdr)* table = nullptr;
    for (const auto& section : sections) {
        // The whole table is stripped of many a library, the loader's part never.
        if (section.sh_type == SHT_SYMTAB || (section.sh_type == SHT_DYNSYM && table == nullptr))
            table = &section;
    }
    if (table == nullptr || table->sh_link >= sections.size()) return;
    const auto& names = sections[table->sh_link];
    symbols_ = symbols::read<ElfW(Sym)>(file, table->sh_offset, table->sh_size / sizeof(ElfW(Sym)));
    names_ = symbols::read<char>(file, names.sh_offset, names.sh_size);
    names_.push_back('\0');
}

inline void SymbolTable::find(Symbol& symbol) const {
    for (const auto& entry : symbols_) {
        const bool is_function = (entry.st_info & 0xf) == STT_FUNC && entry.st_shndx != SHN_UNDEF;
        if (!is_function || symbol.offset - entry.st_value >= entry.st_size) continue;
        if (entry.st_name >= names_.size()) continue;
        symbol.function = names_.data() + entry.st_name;
        symbol.distance = symbol.offset - entry.st_value;
        return;
    }
}

inline Symbol Symbols::find(std::uintptr_t address) {
    symbols::Search search{address};
    Symbol symbol;
    {
        const NoFork while_the_loader_is_asked;
        if (::dl_iterate_phdr(&symbols::look_in_module, &search) == 0) return symbol;
    }
    const bool is_program = search.module[0] == '\0';
    symbol.module = is_program ? this_executable() : search.module;
    symbol.offset = address - search.base;
    // By the link it is found even when it has been deleted or replaced meanwhile.
    const char* file = is_program ? "/proc/self/exe" : search.module;
    tables_.try_emplace(search.module, file).first->second.find(symbol);
    return symbol;
}

}  // namespace multiprocessing::os
