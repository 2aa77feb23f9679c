from attention_atlas.stage import stage


@stage("world")
def main(cfg, stage):
    print(cfg.data, stage.device)


if __name__ == "__main__":
    main()
