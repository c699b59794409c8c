// How: as in cli.cc, for the commands about the fleet and its rules.
#include "cli/add_command.h"
#include "cli/scheduling_commands.h"

namespace capstan::cli {
namespace {

constexpr const char* kTimes = "now, +2h30m, or 2026-11-24T09:00Z (UTC)";

void add_generate_command(CLI::App& fleet, int& exit_code) {
  auto options = std::make_shared<FleetGenerateOptions>();
  CLI::App* command = add_command<FleetGenerateOptions>(
      fleet, "generate", "Print a fleet file of so many UltraServers and hosts",
      "capstan fleet generate --ultraservers 7500 --clusters 4 --hosts 260000 > fleet.yaml", exit_code,
      options, [](const auto& o) { return fleet_generate(o); });
  command->add_option("--name", options->name, "of the fleet")->capture_default_str();
  command->add_option("--region", options->region, "its region")->capture_default_str();
  command->add_option("--clusters", options->clusters, "how many, of equal size")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  command->add_option("--ultraservers", options->ultraservers, "how many in all")
      ->check(CLI::Range(0, 1'000'000));
  command->add_option("--kind", options->kind, "of UltraServer")->capture_default_str();
  command->add_option("--spares", options->spares, "spare trays in each")
      ->check(CLI::Range(0, 1023))
      ->capture_default_str();
  command->add_option("--per-block", options->per_block, "UltraServers in a spine block")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command->add_option("--hosts", options->hosts, "further hosts in all")->check(CLI::Range(0, 20'000'000));
  command->add_option("--host-class", options->host_class, "of these")->capture_default_str();
  command->add_option("--hosts-per-block", options->hosts_per_block, "hosts in a block")
      ->check(CLI::Range(1, 1'000'000))
      ->capture_default_str();
}

void add_fleet_commands(CLI::App& app, Globals& globals, int& exit_code) {
  CLI::App* fleet = app.add_subcommand("fleet", "Regions, clusters, blocks, UltraServers and hosts");
  add_default(fleet, exit_code, [&] { return fleet_show(globals, {}); });
  auto apply_options = std::make_shared<FleetApplyOptions>();
  CLI::App* command = add_command<FleetApplyOptions>(
      *fleet, "apply", "Add the hosts that a fleet file describes", "capstan fleet apply -f fleet.yaml",
      exit_code, apply_options, [&](const auto& o) { return fleet_apply(globals, o); });
  command->add_option("-f,--file", apply_options->file, "the YAML file, or - for standard input")->required();
  command->add_flag("--present", apply_options->present,
                    "the hosts work at once, without workers (planning, simulation)");

  add_generate_command(*fleet, exit_code);
  auto show_options = std::make_shared<FleetShowOptions>();
  command = add_command<FleetShowOptions>(*fleet, "show", "What there is and what is free, as a tree",
                                          "capstan fleet show --level cluster", exit_code, show_options,
                                          [&](const auto& o) { return fleet_show(globals, o); });
  command->add_option("--level", show_options->level, "how deep: region, cluster or block")
      ->check(CLI::IsMember({"region", "cluster", "block"}))
      ->capture_default_str();
}

void add_hosts_commands(CLI::App& app, Globals& globals, int& exit_code) {
  auto list_options = std::make_shared<HostsOptions>();
  CLI::App* hosts = app.add_subcommand("hosts", "List hosts; with a verb, change what may run on them");
  hosts->footer("Example:\n  capstan hosts drain c1-b00-u0007 --why 'switch tray'");
  hosts->add_flag("--names", list_options->names, "names only");
  hosts->add_flag("--unavailable", list_options->unavailable, "only those that take no new work");
  hosts->add_option("--under", list_options->under,
                    "only of this region, cluster, cluster/block or UltraServer");
  hosts->add_option("--limit", list_options->limit, "with --under or --unavailable: at most so many")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();
  add_default(hosts, exit_code, [&globals, list_options] { return list_hosts(globals, *list_options); });
  for (const auto& [verb, help] : {
           std::pair{"cordon", "No new work; what runs there goes on"},
           {"uncordon", "New work again"},
           {"drain", "No new work; what runs there moves away, gracefully"},
           {"fail", "Broken: what runs there goes on elsewhere at once"},
           {"repair", "Being repaired"},
           {"return", "Back in service"},
       }) {
    auto options = std::make_shared<HostVerbOptions>();
    CLI::App* command = add_command<HostVerbOptions>(
        *hosts, verb, help, fmt::format("capstan hosts {} c1-b00-u0007-t03", verb), exit_code, options,
        [&globals, verb = std::string(verb)](const auto& o) { return set_hosts(globals, verb, o); });
    command->add_option("name", options->names, "names of hosts or UltraServers")->required();
    command->add_option("--why", options->why, "a few words, for events and explanations");
    if (std::string_view(verb) == "fail" || std::string_view(verb) == "return") {
      command->add_option("--gpu", options->gpus, "only this GPU of one host, from 0, repeatable")
          ->allow_extra_args(false);
    }
  }

  auto maintain_options = std::make_shared<MaintainOptions>();
  CLI::App* command =
      add_command<MaintainOptions>(app, "maintain", "Keep hosts free of work during a window",
                                   "capstan maintain c1-b00-u0007 --from +2h --until +4h", exit_code,
                                   maintain_options, [&](const auto& o) { return maintain(globals, o); });
  command->add_option("name", maintain_options->names, "names of hosts or UltraServers")->required();
  command->add_option("--from", maintain_options->from, kTimes)->capture_default_str();
  command->add_option("--until", maintain_options->until, kTimes)->required();

  auto defragment_options = std::make_shared<DefragmentOptions>();
  command = add_command<DefragmentOptions>(app, "defragment",
                                           "Which moves of preemptible work would free UltraServers",
                                           "capstan defragment --apply", exit_code, defragment_options,
                                           [&](const auto& o) { return defragment(globals, o); });
  command->add_flag("--apply", defragment_options->apply, "move them, gracefully");
  command->add_option("--moves", defragment_options->moves_max, "at most so many")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
}

void add_tenants_commands(CLI::App& app, Globals& globals, int& exit_code) {
  CLI::App* tenants = app.add_subcommand("tenants", "Who shares the fleet: guarantees, limits, weights");
  add_default(tenants, exit_code, [&] { return tenants_list(globals); });
  auto file = std::make_shared<std::string>();
  CLI::App* command =
      add_command<std::string>(*tenants, "apply", "Add or change the tenants of a file; all or none",
                               "capstan tenants apply -f tenants.yaml", exit_code, file,
                               [&](const auto& o) { return tenants_apply(globals, o); });
  command->add_option("-f,--file", *file, "the YAML file, or - for standard input")->required();
  add_command<int>(*tenants, "list", "Tenants, what they hold, and their shares", "capstan tenants list",
                   exit_code, std::make_shared<int>(), [&](int) { return tenants_list(globals); });
  auto names = std::make_shared<std::vector<std::string>>();
  command = add_command<std::vector<std::string>>(*tenants, "rm", "Remove tenants that hold nothing",
                                                  "capstan tenants rm old-team", exit_code, names,
                                                  [&](const auto& o) { return tenants_remove(globals, o); });
  command->add_option("name", *names, "names of tenants")->required();
}

void add_reservation_commands(CLI::App& app, Globals& globals, int& exit_code) {
  auto options = std::make_shared<ReserveOptions>();
  CLI::App* command = add_command<ReserveOptions>(
      app, "reserve", "Keep hosts for a tenant during a window",
      "capstan reserve march --tenant research --trays 64 --per-ultraserver 16 --gpu-model gb200 --until +7d",
      exit_code, options, [&](const auto& o) { return reserve(globals, o); });
  command->add_option("name", options->name, "the reservation's name")->required();
  command->add_option("--tenant", options->tenant, "whose work may run there")->required();
  command->add_option("--hosts,--trays", options->hosts, "how many")
      ->required()
      ->check(CLI::Range(1, 1'000'000));
  command
      ->add_option("--per-ultraserver", options->per_ultraserver,
                   "in groups of so many inside one UltraServer")
      ->check(CLI::Range(1, 1024));
  command->add_option("--gpu-model", options->gpu_model, "hosts with these GPUs only, such as gb200");
  command->add_option("--host-class", options->host_class, "hosts of this class only, such as m8g.48xlarge");
  command->add_option("--cluster", options->cluster, "hosts of this cluster only");
  command->add_option("--from", options->from, kTimes)->capture_default_str();
  command->add_option("--until", options->until, kTimes)->required();

  add_command<int>(app, "reservations", "Reservations and maintenance windows", "capstan reservations",
                   exit_code, std::make_shared<int>(), [&](int) { return reservations(globals); });

  auto names = std::make_shared<std::vector<std::string>>();
  command = add_command<std::vector<std::string>>(
      app, "unreserve", "Give reserved hosts back, or end a window of maintenance", "capstan unreserve march",
      exit_code, names, [&](const auto& o) { return unreserve(globals, o); });
  command->add_option("name", *names, "names of reservations, or the first host of a window")->required();
}

void add_queue_commands(CLI::App& app, Globals& globals, int& exit_code) {
  auto queue_options = std::make_shared<QueueOptions>();
  CLI::App* command =
      add_command<QueueOptions>(app, "queue", "Who waits, in which order, and why", "capstan queue",
                                exit_code, queue_options, [&](const auto& o) { return queue(globals, o); });
  command->add_option("--limit", queue_options->limit, "at most so many")
      ->check(CLI::Range(1, 10'000))
      ->capture_default_str();

  auto policy_options = std::make_shared<PolicyOptions>();
  command = add_command<PolicyOptions>(app, "policy", "Show or change the order of the queue",
                                       "capstan policy --order fair-share", exit_code, policy_options,
                                       [&](const auto& o) { return policy(globals, o); });
  command->add_option("--order", policy_options->order, "fair-share, fifo, sjf, srtf or srsf");
  command->add_option("--starvation", policy_options->starvation,
                      "a gang that waits so long gets room kept for it, for example 10m");
}

}  // namespace

void add_default(CLI::App* group, int& exit_code, std::function<int()> otherwise) {
  group->require_subcommand(0, 1);
  auto words = std::make_shared<std::vector<std::string>>();  // shared by the option and the callback
  group->add_option("word", *words, "")->group("");
  group->callback([group, words, &exit_code, otherwise] {
    if (!group->get_subcommands().empty()) return;
    if (words->empty()) {
      exit_code = otherwise();
      return;
    }
    std::vector<std::string> known;
    for (const CLI::App* command : group->get_subcommands([](const CLI::App*) { return true; }))
      known.push_back(command->get_name());
    exit_code = report(Error{Code::kInvalid,
                             fmt::format("{} has no '{}'; known are {}", group->get_name(), words->front(),
                                         fmt::join(known, ", ")),
                             {}});
  });
}

void add_scheduling_commands(CLI::App& app, Globals& globals, int& exit_code) {
  add_fleet_commands(app, globals, exit_code);
  add_hosts_commands(app, globals, exit_code);
  add_tenants_commands(app, globals, exit_code);
  add_reservation_commands(app, globals, exit_code);
  add_queue_commands(app, globals, exit_code);
}

}  // namespace capstan::cli
