# Sets up the machines of the Vagrantfile. It can be called on any system that has Vagrant: what needs Debian runs on the
# machines, the rest is Ruby, which is part of Vagrant.
#
# repository/, beside the Vagrantfile, has the packages of ngx_pgq, signed with the key in .vagrant/ngx_pgq/signing/
# (provision/package/repository). .vagrant/ngx_pgq/secrets/ has the CA, keys and passwords (provision/cluster/secrets). If
# they do not exist, or the sources have changed, the machine that is set up makes them, sends them here, and removes the
# private keys that it has used; for the packages this can be the machine `builder`. A machine of the cluster is given the
# scripts, the packages and its own secrets, makes its kit of them (provision/cluster/kit) and runs the kit's
# provision/host/setup.

require "digest"
require "fileutils"
require "json"
require "net/http"
require "openssl"
require "rubygems/package"

module NgxPgq
  TOP = File.expand_path("../..", __dir__)
  SCRIPTS = %w[provision patroni haproxy].freeze
  PACKAGED = %w[debian docs monitoring ngx_pgq_module patroni/raise_ids pg_extension provision/common.bash
                provision/install-packages provision/package sql CHANGELOG.md README.md].freeze
  MADE = /\.s?o\z/
  SETTINGS = %w[NGX_PGQ_CLIENTS NGX_PGQ_MONITORS NGX_PGQ_RATE NGX_PGQ_UNLIMITED NGX_PGQ_ORIGINS NGX_PGQ_HTTP].freeze


  # The hosts of the cluster, and a check that it accepts messages.
  class Cluster
    attr_reader :hosts

    def initialize(network, hosts)
      @network = network
      @hosts = hosts
    end

    def address(host)
      "#{@network}.#{host[:last]}"
    end

    def peers
      hosts.map { |host| "#{host[:role]}:#{host[:name]}:#{address(host)}" }
    end

    # Returns the environment of provision/host/setup.
    def settings
      [*("NGX_PGQ_PATIENCE=#{patience}" if ENV.key?("NGX_PGQ_PATIENCE")), *ENV.slice(*SETTINGS).map { |name, value| "#{name}='#{value}'" }]
    end

    def patience
      Integer(ENV.fetch("NGX_PGQ_PATIENCE", "1"))
    end

    # Posts a message to each web host, reads all from each, and shows the URLs; nothing unless all machines are running.
    def smoke(env, machine)
      return unless hosts.all? { |host| env.machine(host[:name].to_sym, machine.provider_name).state.id == :running }

      urls = hosts.select { |host| host[:role] == "web" }.map { |host| "https://#{address(host)}" }
      @ca = machine.env.local_data_path.join("ngx_pgq/secrets/ca.crt").to_s
      machine.ui.info("waiting until the cluster accepts messages")

      texts = urls.map do |url|
        text = JSON.generate("by" => url, "stamp" => rand(1 << 62).to_s)
        answer = wait(180, "#{url}/post does not answer 202") { ask(url, "/post", text, "202") }
        machine.ui.info("POST #{url}/post  #{answer}")
        text
      end

      urls.product(texts) do |url, text|
        wait(10, "#{url}/get does not show #{text}") { ask(url, "/get?limit=20", nil, "200")&.include?(text) }
      end

      machine.ui.success("GET shows each message at both")
      machine.ui.success("running: POST #{urls.map { |url| "#{url}/post" }.join(" and ")}, GET …/get and …/stream")
      machine.ui.success("the CA of its certificates, for curl --cacert: #{@ca}")
    end

    private

    def wait(seconds, complaint)
      deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + seconds * patience

      until (found = yield)
        raise Failed, text: complaint if Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

        sleep 0.5
      end

      found
    end

    # Returns the body of an answer with that status, or nil.
    def ask(url, path, text, status)
      uri = URI(url + path)
      http = Net::HTTP.new(uri.host, uri.port, nil)
      http.use_ssl = true
      http.ca_file = @ca
      http.open_timeout = 5
      http.read_timeout = 60

      answer = if text
                 http.post(uri.request_uri, text, "Content-Type" => "application/json")
               else
                 http.get(uri.request_uri)
               end

      answer.body.chomp if answer.code == status
    rescue SystemCallError, IOError, OpenSSL::SSL::SSLError, Timeout::Error, Net::ProtocolError, Net::HTTPBadResponse
      nil
    end
  end


  class Failed < Vagrant::Errors::VagrantError
    def initialize(message)
      @text = message[:text]
      super
    end

    def error_message
      "ngx_pgq: #{@text}"
    end
  end


  class Config < Vagrant.plugin("2", :config)
    attr_accessor :cluster, :host
  end


  # The provisioner: makes the packages, and sets up one machine if it is a host of the cluster.
  class Setup < Vagrant.plugin("2", :provisioner)
    GIVEN = "/root/ngx_pgq".freeze
    DONE = "ngx_pgq: done".freeze

    def provision
      @kept = @machine.env.local_data_path.join("ngx_pgq").to_s
      FileUtils.mkdir_p(@kept, mode: 0o700)

      make(%w[repository signing], digest, "building the packages of ngx_pgq", PACKAGED, "provision/package/repository made")

      if config.host
        set_up(config.cluster, config.host)
      else
        @machine.ui.info("packages, and a signed package source of them: #{place("repository")}")
      end
    end

    private

    def set_up(cluster, host)
      names = ENV.fetch("NGX_PGQ_NAMES", "")
      make(%w[secrets], [*cluster.peers, *names.split].join(" "), "making CA, keys and passwords", SCRIPTS,
           "NGX_PGQ_NAMES='#{names}' provision/cluster/secrets made/secrets #{cluster.peers.join(" ")}")

      give(SCRIPTS, ["repository", "secrets/#{host[:name]}"])
      run("(cd #{GIVEN} && provision/cluster/kit /root/kit #{host[:name]} made/repository made/secrets); status=$?; " \
          "rm -rf #{GIVEN}; [ $status = 0 ] && #{cluster.settings.join(" ")} /root/kit/provision/host/setup " \
          "#{host[:name]} #{cluster.address(host)} #{host[:role]} #{cluster.peers.join(" ")}")
    end

    # Runs COMMAND once, with these sources, to create the directories NAMES; again only when its inputs (origin) changed.
    def make(names, origin, news, sources, command)
      stamp = File.join(@kept, "#{names.first}.origin")
      return if names.all? { |name| Dir.exist?(place(name)) } && File.exist?(stamp) && File.read(stamp) == origin

      @machine.ui.info("#{news} (once)")
      FileUtils.rm_f(stamp)
      give(sources, names - ["repository"])
      parcel do |there|
        run("(cd #{GIVEN} && mkdir -p made && #{command} && umask 077 && tar -C made -cf #{there} #{names.join(" ")} && " \
            "chown #{@machine.ssh_info[:username]} #{there}); status=$?; rm -rf #{GIVEN}; exit $status")
        take(names, there)
      end
      File.write(stamp, origin, perm: 0o600)
    end

    # Returns the path of a directory that is kept here.
    def place(name)
      name == "repository" ? @machine.env.root_path.join(name).to_s : File.join(@kept, name)
    end

    # Yields the name of a file on the machine, in a directory that mktemp makes for Vagrant's user: no other user can
    # predict its name or read it.
    def parcel
      said = +""
      @machine.communicate.execute("mktemp -d /tmp/ngx_pgq.XXXXXXXX") { |stream, text| said << text if stream == :stdout }
      directory = said.strip
      raise Failed, text: "#{@machine.name} did not make a directory" unless directory.start_with?("/tmp/ngx_pgq.")

      yield "#{directory}/parcel.tar"
      run("rm -rf #{directory}")
    end

    # Copies these files and directories of this repository to GIVEN on the machine, and kept directories to GIVEN/made.
    def give(sources, kept)
      here = File.join(@kept, "parcel.tar")

      File.open(here, "wb", 0o600) do |file|
        Gem::Package::TarWriter.new(file) do |tar|
          NgxPgq.sources(sources).each { |name| pack(tar, File.join(TOP, name), name) }
          kept.each { |name| NgxPgq.files(place(name)).each { |path| pack(tar, File.join(place(name), path), "made/#{name}/#{path}") } }
        end
      end

      parcel do |there|
        @machine.communicate.upload(here, there)
        run("umask 077 && rm -rf #{GIVEN} && mkdir #{GIVEN} && tar -C #{GIVEN} --no-same-owner -xmf #{there}")
      end
    ensure
      FileUtils.rm_f(here)
    end

    # A script is recognized by its first line: not every system has the executable bit.
    def pack(tar, path, name)
      text = File.binread(path)
      tar.add_file_simple(name, text.start_with?("#!") ? 0o755 : 0o644, text.bytesize) { |to| to.write(text) }
    end

    # Replaces the kept directories of these names by those in the file on the machine. Other users may read the packages.
    def take(names, there)
      here = File.join(@kept, "parcel.tar")
      FileUtils.touch(here)
      File.chmod(0o600, here)
      @machine.communicate.download(there, here)
      names.each { |name| FileUtils.rm_rf(place(name)) }

      File.open(here, "rb") do |file|
        Gem::Package::TarReader.new(file).each do |entry|
          next unless entry.file?

          name, path = entry.full_name.split("/", 2)
          to = File.join(place(name), path)
          FileUtils.mkdir_p(File.dirname(to))
          File.binwrite(to, entry.read.to_s, perm: name == "repository" ? 0o644 : 0o600)
        end
      end
    ensure
      FileUtils.rm_f(here)
    end

    # Runs a command as root. Vagrant takes a lost connection for success: so the command has to print DONE at its end.
    def run(command)
      done = false
      rest = Hash.new("")

      show = lambda do |line|
        done ||= line == DONE
        @machine.ui.detail(line) unless line == DONE || line.strip.empty?
      end

      @machine.communicate.sudo("(#{command}) < /dev/null && echo #{DONE}") do |stream, text|
        *lines, rest[stream] = (rest[stream] + text).split("\n", -1)
        rest[stream] ||= ""
        lines.each(&show)
      end

      rest.each_value(&show)
      raise Failed, text: "the connection to #{@machine.name} broke: vagrant provision #{@machine.name}" unless done
    end

    # Returns the digest of all that the packages are made of.
    def digest
      sum = Digest::SHA256.new
      NgxPgq.sources(PACKAGED).each { |name| sum << name << "\0" << File.binread(File.join(TOP, name)) << "\0" }
      sum.hexdigest
    end
  end


  # Returns the files of this repository with these names, and those below directories with these names, without build results.
  def self.sources(names)
    files(TOP, names.map { |name| "#{name}{,/**/*}" }).grep_v(MADE)
  end

  # Returns the names of the files in a directory.
  def self.files(directory, patterns = "**/*")
    Dir.glob(patterns, base: directory).select { |name| File.file?(File.join(directory, name)) }.sort
  end


  class Plugin < Vagrant.plugin("2")
    name "ngx_pgq"
    config(:ngx_pgq, :provisioner) { Config }
    provisioner(:ngx_pgq) { Setup }
  end
end
